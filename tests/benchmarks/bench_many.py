"""What many small cases take: in one process and in two, for each case, and in files.

Run it with `python tests/benchmarks/bench_many.py [CASES]`, alone on the machine: 200 copies of three small cases of
the guides. Goal: two processes take at most 0.6 of the wall time of one. Processor time tells work from waiting.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = Path(__file__).parents[2] / "cases"
SMALL = ("counter", "stateful_linear", "custom_linear")


def measure(folder: Path, jobs: int) -> tuple[float, float]:
    """Wall and processor seconds of a run in so many processes; its reports are in a folder of this number."""
    reports = folder / str(jobs)
    command = [sys.executable, "-m", "equiv", "run", "cases", "-n", str(jobs), "--html", "--reports", str(reports)]
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, spent


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cases").mkdir()
        for index in range(number):
            shutil.copy(CASES / f"{SMALL[index % len(SMALL)]}.py", folder / "cases" / f"case_{index:04}.py")
        (one, one_spent), (two, two_spent) = (measure(folder, jobs) for jobs in (1, 2))
        print(f"{number} cases: -n 1 {one:.1f} s, -n 2 {two:.1f} s; -n 2 / -n 1: {two / one:.2f}")
        print(f"processor seconds: {one_spent:.1f} and {two_spent:.1f}; for each case {one_spent / number:.2f}")
        for file in ("results.json", "parity.html"):
            size = (folder / "1" / file).stat().st_size
            print(f"{file}: {size / 1e6:.2f} MB, {size / number / 1e3:.1f} kB for each case")


if __name__ == "__main__":
    main()
