"""A user's project for the tests of the pytest plugin: a small case in variants, and pytest in a subprocess."""

import os
import subprocess
import sys
from pathlib import Path

BUILDERS = """
def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="dense")(x)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x)

    return Model()
"""

CASE = f'''"""A lesson."""

from equiv.case import Case
from equiv.layers import linear

{BUILDERS}

CASE = Case(
    guide="none",
    models={{"linen": linen, "nnx": nnx}},
    batch={{"x": "float32[4,2]"}},
    layers=(linear("dense", linen="dense", nnx="dense"),),
    steps=1,
)
'''

KINDS = {
    "same": ("", ""),
    "counted": ("from flax import nnx", 'from flax import nnx\n    open("built.txt", "a").write("x")'),
    "two": ('"nnx": nnx}', '"nnx": nnx, "haiku": lambda: 1 / 0}'),
    "sharded": ("steps=1,", 'steps=1,\n    meshes=({"data": 4},),\n    batch_axes={"x": ("data",)},'),
    "different": ("self.dense(x)", "self.dense(x) * 2"),
    "missing": ("from flax import nnx", "import nonexistent_library"),
    "raising": ("self.dense = nnx.Linear", "self.dense = nnx.Bilinear"),
    "unlike": ("nnx.Linear(2, 3", "nnx.Linear(2, 4"),
    "unusable": ("float32[4,2]", "float32[4,2"),
    "broken": ("CASE = Case(", "CASE = = Case("),
    "killing": (
        "from flax import nnx",
        "from flax import nnx\n    import os, signal\n"
        '    if "PYTEST_XDIST_WORKER" in os.environ:\n        os.kill(os.getpid(), signal.SIGKILL)\n',
    ),
}
"""Variant of the case to the text of `CASE` that is replaced, and its replacement."""

STRANGERS = ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "FORCE_COLOR")
"""Environment variables that are removed, since the outer test run would change the inner one by them."""


def write_case(path: Path, kind: str = "same") -> Path:
    """Write a case file of a variant (see `KINDS`)."""
    old, new = KINDS[kind]
    assert old in CASE, f"{old!r} does not occur"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CASE.replace(old, new))
    return path


def pytest_in(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does, in a subprocess; 80 columns, no colour."""
    return python_in(folder, "-m", "pytest", *arguments, **environment)


def python_in(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a subprocess, with a folder as its working directory."""
    kept = {name: value for name, value in os.environ.items() if name not in STRANGERS}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "NO_COLOR": "1", "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def outcomes(output: str) -> dict[str, str]:
    """Name of every test to its outcome, read from the list that `-rA` prints."""
    rows = [line.split(" - ")[0].split(" ", 1) for line in output.splitlines() if "::" in line]
    return {name.rpartition("::")[2].strip(): word for word, name in rows if word in ("PASSED", "FAILED", "ERROR")}
