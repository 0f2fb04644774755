"""The floor of a run, timed by `bench_run.py`: trace, compile and run each distinct program of cases once.

Run it with `python tests/benchmarks/run_floor.py fused|users|separate NAME...`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from program_floor import run_programs

from equiv.core.case_files import CaseFile, load_case

CASES = Path(__file__).parents[2] / "cases"

if __name__ == "__main__":
    how, *names = sys.argv[1:]
    for name in names:
        case = load_case(CaseFile(name, CASES / f"{name}.py")).case
        run_programs(case, users=how == "users", each_alone=how == "separate")
