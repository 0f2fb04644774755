"""What a run costs, as ratios within one session: against the floor, and against what a user would write.

Run it with `nox -s bench`. Each contender is a fresh process; rounds are interleaved, and the median of the ratios
of neighbouring runs is reported with its range, because the machine is noisy.

- floor: import the libraries, trace, compile and run each distinct program once, one fused program per port.
- users: the floor, and the programs that users call, each compiled by itself as they do and run on the same values.
- separate: the floor's programs, every program compiled by itself.
- chex: plain pytest with `chex.assert_trees_all_close` on the same outputs, gradients and five steps.
- run: `equiv run` on the same six cases.
- prove: `equiv run --prove-only` on them.

Beside them, the seconds that mapping, tracing and proving them take once everything is imported.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOOR = str(Path(__file__).with_name("run_floor.py"))
SIX = ("dropout", "batch_norm", "auto_encoder", "rnn_scan", "scan_over_layers", "counter")

STAGES = """
import gc, json, sys, time
from pathlib import Path
import haiku, flax.linen, optax
from flax import nnx
from equiv.comparison.stages import open_case, prove_ports, trace_ports
from equiv.core.case_files import CaseFile, load_case
from equiv.frontends.cli.base import GC_THRESHOLDS
gc.set_threshold(*GC_THRESHOLDS)
taken = dict.fromkeys(("map", "trace", "prove"), 0.0)
def timed(stage, function):
    started = time.perf_counter()
    result = function()
    taken[stage] += time.perf_counter() - started
    return result
for name in sys.argv[1:]:
    case = load_case(CaseFile(name, Path("cases") / f"{name}.py")).case
    opened = timed("map", lambda: open_case(case))
    traced = timed("trace", lambda: trace_ports(opened))
    timed("prove", lambda: prove_ports(traced))
print(json.dumps({**taken, "all": sum(taken.values())}))
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands that are timed, by name."""
    python = sys.executable
    expression = " or ".join(SIX)
    # `train_state_*` contain the names of two of the six.
    wanted = f"({expression}) and not train_state and not optimizer"
    return {
        "floor": [python, FLOOR, "fused", *SIX],
        "users": [python, FLOOR, "users", *SIX],
        "separate": [python, FLOOR, "separate", *SIX],
        "chex": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/benchmarks/bench_chex.py"],
        "run": [python, "-m", "equiv", "run", "cases", "-k", wanted, "--reports", str(folder)],
        "prove": [python, "-m", "equiv", "run", "cases", "-k", wanted, "--reports", str(folder), "--prove-only"],
    }


def measure(rounds: int) -> dict[str, list[float]]:
    """Wall seconds per contender and round."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, command in commands(Path(folder)).items():
                started = time.perf_counter()
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
                # 3: --prove-only leaves Haiku's running averages open.
                if done.returncode and not (name == "prove" and done.returncode == 3):
                    sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return seconds


def stages(rounds: int) -> list[dict[str, float]]:
    """Seconds of mapping, tracing, proving and all three, per round."""
    command = [sys.executable, "-c", STAGES, *SIX]
    return [json.loads(subprocess.check_output(command, cwd=ROOT, text=True)) for _ in range(rounds)]


def ratios(seconds: dict[str, list[float]], over: str, under: str) -> str:
    """Median and range of the ratios of the same round."""
    found = [one / other for one, other in zip(seconds[over], seconds[under], strict=True)]
    return f"{over} / {under}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = measure(rounds)
    print(json.dumps({name: [round(value, 2) for value in values] for name, values in seconds.items()}))
    for under in ("floor", "users", "separate", "chex"):
        print(ratios(seconds, "run", under))
    print(ratios(seconds, "prove", "floor"))
    alone = stages(rounds)
    print(", ".join(f"{stage} {statistics.median(one[stage] for one in alone):.2f} s" for stage in alone[0]))


if __name__ == "__main__":
    main()
