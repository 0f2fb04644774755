"""What the pytest plugin costs a test suite that has no cases: paired ratios of fresh processes, in one session.

Run it with `nox -s bench`, or `python tests/benchmarks/bench_plugin.py [ROUNDS]`. Each round runs, in random
order, pytest with the plugin, without it (`-p no:equiv`), and without it once more as the control, whose difference is
noise. Ratios are paired within a round; the interval is a 95 % bootstrap interval of their median.

- wall: from start to end of the process.
- cpu: user and system time of the process, which is steadier where others use the machine.
"""

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

FILES, TESTS = 10, 10
CONTENDERS = {"with": (), "without": ("-p", "no:equiv"), "control": ("-p", "no:equiv")}
CACHE = ("-p", "no:cacheprovider")  # it would know the last run
Times = dict[str, list[tuple[float, float]]]


def write_suite(folder: Path) -> None:
    """A test suite without cases."""
    for number in range(FILES):
        tests = "\n".join(f"def test_{index}(): assert {index} == {index}\n" for index in range(TESTS))
        (folder / f"test_{number}.py").write_text(tests)


def seconds(folder: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    command = [sys.executable, "-m", "pytest", "-q", *CACHE, *options]
    # Else pytest would compile every plugin in every run.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or f"{FILES * TESTS} passed" not in done.stdout:
        sys.exit(f"pytest failed:\n{done.stdout}\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> Times:
    """Seconds per contender and round."""
    times: Times = {name: [] for name in CONTENDERS}
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_suite(folder)
        for options in CONTENDERS.values():
            seconds(folder, options)  # compiled files are written, the disk is read
        for _ in range(rounds):
            for contender in chance.sample(list(CONTENDERS), len(CONTENDERS)):
                times[contender].append(seconds(folder, CONTENDERS[contender]))
    return times


def ratio(times: Times, over: str, clock: int) -> str:
    """The median of the paired ratios to `without`, with its interval."""
    paired = [one[clock] / other[clock] for one, other in zip(times[over], times["without"], strict=True)]
    found = bootstrap((np.array(paired),), np.median, rng=np.random.default_rng(0)).confidence_interval
    return f"{statistics.median(paired):.4f} [{found.low:.4f}, {found.high:.4f}]"


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    times = measure(rounds)
    for clock, what in enumerate(("wall", "cpu")):
        median = statistics.median(each[clock] for each in times["without"])
        print(f"{what}, {rounds} rounds, {FILES * TESTS} tests, {median:.3f} s without the plugin:")
        print(f"  with / without:    {ratio(times, 'with', clock)}")
        print(f"  without / without: {ratio(times, 'control', clock)} (control)")


if __name__ == "__main__":
    main()
