"""What a run costs, as ratios within one session: against the floor, and against what a user would write.

Run it with `nox -s bench`. Each contender is a fresh process; rounds are interleaved, and the median of the ratios
of neighbouring runs is reported with its range, because the machine is noisy.

- floor: import the libraries, trace, compile and run each distinct program once, one fused program per port.
- separate: the same, every program compiled by itself.
- chex: plain pytest with `chex.assert_trees_all_close` on the same outputs, gradients and five steps.
- run: `equiv run` on the same six cases.
- prove: `equiv run --prove-only` on them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIX = ("dropout", "batch_norm", "auto_encoder", "rnn_scan", "scan_over_layers", "counter")

FLOOR = """
import sys
from pathlib import Path
from equiv.evidence.execute import lower_programs, run
from equiv.load import CaseFile, load
from equiv.traced import trace_programs
from equiv.probe import make_probe
from equiv.program import Programs
from equiv.trace import Tracer
from equiv.workshop import build_port, request_of
fused = sys.argv[1] == "fused"
for name in sys.argv[2:]:
    case = load(CaseFile(name, Path("cases") / f"{name}.py")).case
    request, entries = request_of(case)
    ports = [build_port(case, backend, request) for backend in case.models]
    has_modes = any(built.port.modes for built in ports)
    probe = make_probe("0", 1, ports[0].table, entries, case.steps)
    for built in ports:
        programs, _ = trace_programs(Tracer(built.port, built.table, request, False, has_modes))
        alone = [Programs(programs.backend, False, (part,), None, None) for part in programs.parts]
        alone.append(Programs(programs.backend, False, (), programs.begin, programs.step))
        for part in [programs] if fused else alone:
            run(lower_programs(part, built.table, case.steps, probe)(), probe)
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """The contenders."""
    python = sys.executable
    expression = " or ".join(SIX)
    # `train_state_*` contain the names of two of the six.
    wanted = f"({expression}) and not train_state and not optimizer"
    return {
        "floor": [python, "-c", FLOOR, "fused", *SIX],
        "separate": [python, "-c", FLOOR, "separate", *SIX],
        "chex": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/bench_chex.py"],
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


def ratios(seconds: dict[str, list[float]], over: str, under: str) -> str:
    """Median and range of the ratios of the same round."""
    found = [one / other for one, other in zip(seconds[over], seconds[under], strict=True)]
    return f"{over} / {under}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = measure(rounds)
    print(json.dumps({name: [round(value, 2) for value in values] for name, values in seconds.items()}))
    for under in ("floor", "separate", "chex"):
        print(ratios(seconds, "run", under))
    print(ratios(seconds, "prove", "floor"))


if __name__ == "__main__":
    main()
