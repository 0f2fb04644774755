"""Seconds to a verdict after one more layer is moved to the other library, each in a process of its own.

Run it with `python tests/benchmarks/bench_moves.py [MOVES]`, alone on the machine: Linen's layers in an NNX model go to
NNX one by one (`tests/mixture_models.py`), and every step is compared with the pure model in Linen as `equiv check`
does, with what earlier steps have compiled (`equiv/running/compile_cache.py`), in an empty cache of its own; the first
step compiles the modules of Python, too. The last line is the last step once more, of which nothing has changed.
Printed for each: wall seconds, processor seconds of all threads, and those of the thread that traces and proves, by
stage. Goal: under 5 s after the first step.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

STAGES = {
    "reading both ports": "infer, build",
    "tracing": "trace",
    "proving": "prove, lower",
    "tracing with other sizes": "sizes",
    "compiling linen": "wait, run",
    "measuring rounding": "rounding",
    "compiling nnx": "wait, run nnx",
    "measuring the sensitivity of the probes": "probes",
    "running the ports as users do": "as users",
}
"""What is said of a stage, and its column."""

Clocks = tuple[float, float, float]


def clocks() -> Clocks:
    """Wall, processor and thread seconds."""
    return time.perf_counter(), time.process_time(), time.thread_time()


def check(wrapped: int) -> None:
    """Compare one mixture in this process, and print its seconds as JSON."""
    from equiv.running.compile_cache import keep_compiled_here
    from equiv.running.worker import GC_THRESHOLDS

    gc.set_threshold(*GC_THRESHOLDS)
    spent: dict[str, Clocks] = {}
    last = ["import", (time.perf_counter(), 0.0, 0.0)]

    def note(stage: str) -> None:
        now = clocks()
        before = spent.get(last[0], (0.0, 0.0, 0.0))
        spent[last[0]] = tuple(had + one - was for had, one, was in zip(before, now, last[1], strict=True))
        last[:] = [STAGES.get(stage.removeprefix("inferred: "), stage), now]

    with keep_compiled_here():
        from mixture_models import BATCH, builder_of

        import equiv

        run = equiv.compare(builder_of("linen", 0), builder_of("nnx", wrapped), batch=BATCH, progress=note)
        note("end")
    print(json.dumps({"verdict": run.verdict, "spent": spent}))


def measure(wrapped: int, cache: str) -> None:
    """Run one step in a process of its own, and print its line."""
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, __file__, "--alone", str(wrapped)]
    # Compiled modules are kept, as everywhere but where a developer has turned that off.
    environment = os.environ | {"XDG_CACHE_HOME": cache, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    after, wall = os.times(), time.perf_counter() - began
    every = after.children_user - before.children_user + after.children_system - before.children_system
    found = json.loads(done.stdout.splitlines()[-1])
    parts = ", ".join(f"{stage} {thread:.2f}" for stage, (_, _, thread) in found["spent"].items())
    thread = sum(one[2] for one in found["spent"].values())
    print(
        f"{wrapped:2} {found['verdict']}: wall {wall:.1f} s, all threads {every:.1f}, main {thread:.1f}: {parts}",
        flush=True,
    )


def main() -> None:
    """Move one layer after the other."""
    if sys.argv[1:2] == ["--alone"]:
        check(int(sys.argv[2]))
        return
    moves = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with tempfile.TemporaryDirectory() as cache:
        steps = [63 & ~(2**moved - 1) for moved in range(moves + 1)]
        for wrapped in (*steps, steps[-1]):
            measure(wrapped, cache)


if __name__ == "__main__":
    main()
