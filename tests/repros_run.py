"""Reproductions in an environment without equiv, haiku and flax: `tests/repros_run.py PYTHON [NAME ..]`.

PYTHON is an interpreter that has jax and numpy and nothing else of what equiv needs. Each fault of `repro_models.py` is
planted, its reproduction is written, and run by that interpreter: it has to show a difference, and none once what is
guilty is replaced. Names select faults. Exit code 0: all do.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from repro_models import SMALL_FAULTS, SmallFault, mend_script, reproduce_fault

from equiv.comparison.explain.reproduction.repro_file import MOST_LINES, write_script

ABSENT = ("equiv", "haiku", "flax", "optax")


def refuse_others(python: str) -> None:
    """End where the interpreter has more than it may have."""
    code = f"import importlib.util as u; print([name for name in {ABSENT} if u.find_spec(name)])"
    found = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if found != "[]":
        sys.exit(f"{python} has {found}: that is no test of a file that needs jax and numpy alone")


def run_file(python: str, path: Path) -> tuple[int, str, float]:
    """Run a file: its exit code, what it prints, and the seconds that it takes."""
    clock = time.perf_counter()
    done = subprocess.run([python, "-I", str(path)], capture_output=True, text=True, check=False, cwd=path.parent)
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - clock


def try_fault(python: str, fault: SmallFault, folder: Path) -> str:
    """Reproduce a fault, with it and without: what is wrong; empty where nothing is."""
    made = reproduce_fault(fault)
    text = write_script(made, f"A model with a fault: {fault.name}.")
    np.savez(folder / "repro.npz", allow_pickle=False, **made.functions.arrays)
    (folder / "repro.py").write_text(text)
    (folder / "mended.py").write_text(mend_script(text, fault))
    code, said, seconds = run_file(python, folder / "repro.py")
    lines = len(text.splitlines())
    size = sum(array.nbytes for array in made.functions.arrays.values())
    print(f"{fault.name:18} {lines} lines, {made.operations} operations, {size} bytes, {seconds:.1f} s: ", end="")
    print(said.strip().splitlines()[0] if said.strip() else "nothing", flush=True)
    if lines > MOST_LINES or code != 1 or not said.strip().endswith("different"):
        return f"{lines} lines, exit code {code}: {said}"
    code, said, _ = run_file(python, folder / "mended.py")
    return "" if code == 0 and said.strip().endswith("same") else f"without the fault: exit code {code}: {said}"


def main() -> int:
    """Try all faults, or those whose names are given."""
    python, *names = sys.argv[1:] or sys.exit(__doc__)
    refuse_others(python)
    wrong = 0
    for fault in SMALL_FAULTS:
        if names and not any(name in fault.name for name in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            problem = try_fault(python, fault, Path(folder))
        wrong += bool(problem)
        if problem:
            print(f"  wrong: {problem}")
    print("all are right" if not wrong else f"{wrong} are wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
