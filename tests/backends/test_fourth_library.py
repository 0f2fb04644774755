"""A fourth library is a folder and nothing else: a copy of Linen's under another name, through every command.

Its models derive from a class of a module that only it owns, so that they are told from Linen's.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from equiv import backends
from equiv.backends import linen, registry
from equiv.frontends.cli.main import main

MODULE = '''"""The model classes of the fourth library."""
import flax.linen as nn


class Module(nn.Module):
    """Base class of its models."""
'''
MODELS = '''"""One model in two libraries."""


def old():
    import haiku as hk

    return hk.without_apply_rng(hk.transform(lambda x: hk.Linear(3, name="b")(hk.Linear(5, name="a")(x))))


def new():
    import flax.linen as nn
    import linen2_models

    class Model(linen2_models.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="b")(nn.Dense(5, name="a")(x))

    return Model()
'''
CASE = '''"""Two layers."""
from models import new, old

from equiv import Case
from equiv.layers import linear

CASE = Case(
    guide="none",
    models={"haiku": old, "linen2": new},
    batch={"x": "float32[4,7]"},
    layers=(linear("a", haiku="a", linen2="a"), linear("b", haiku="b", linen2="b")),
    steps=2,
)
'''
TEST = """from equiv.layers import linear
import models


def test_port(equiv):
    layers = (linear("a", haiku="a", linen2="a"), linear("b", haiku="b", linen2="b"))
    equiv.check(models.old, models.new, batch={"x": "float32[4,7]"}, layers=layers)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project of a user of the fourth library, and the library's folder among the backends."""
    folder = tmp_path / "backends"
    shutil.copytree(Path(linen.__file__).parent, folder / "linen2", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "linen2").glob("*.py"):
        path.write_text(path.read_text().replace("equiv.backends.linen", "equiv.backends.linen2"))
    library = folder / "linen2" / "library.py"
    text = library.read_text()
    assert 'name="linen"' in text
    assert 'modules=("flax.linen",)' in text
    text = text.replace('name="linen"', 'name="linen2"')
    library.write_text(text.replace('modules=("flax.linen",)', 'modules=("linen2_models",)'))
    (tmp_path / "linen2_models.py").write_text(MODULE)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "case.py").write_text(CASE)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(folder)])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("equiv.backends.linen2") or name in OURS]:
        del sys.modules[name]
    vars(backends).pop("linen2", None)


OURS = ("linen2_models", "models")


def run(*arguments: str) -> str:
    ran = CliRunner().invoke(main, [str(one) for one in arguments])
    assert (ran.exit_code, ran.exception) == (0, None), ran.output
    return ran.stdout


def test_every_command_takes_the_fourth_library(project: Path):
    assert "linen2" in registry.backend_names()
    shown = run("run", "case.py")
    assert ("✓ Same: 1 comparison of 1 case" in shown, "linen2 / haiku" in shown) == (True, True)
    assert "✓ Same" in run("check", "models.py:old", "models.py:new", "--input", "float32[4,7]")
    shown = run("map", "models.py:old", "models.py:new", "--input", "float32[4,7]", "-o", "mapped.py")
    assert "✓ Mapped: 4 leaves of haiku and 4 of linen2" in shown
    run("new", "models.py:old", "models.py:new", "--input", "float32[4,7]", "-o", "first.py")
    assert 'linear("a", haiku="a", linen2="a")' in (project / "first.py").read_text()
    run("freeze", "case.py", "-o", "case.equiv")
    assert "linen2 / frozen haiku" in run("run", "case.py", "--against", "case.equiv")


def test_a_checkpoint_goes_to_the_fourth_library(project: Path):
    """And is verified by running both models."""
    from models import old

    params = old().init(jax.random.key(0), np.ones((4, 7), "float32"))
    arrays = {
        f"{module}/{name}": np.asarray(leaf) for module, leaves in params.items() for name, leaf in leaves.items()
    }
    np.savez("old.npz", **arrays)
    run("convert", "old.npz", "--case", "case.py", "--to", "linen2", "-o", "port.npz", "--format", "npz", "--verify")
    with np.load("port.npz") as converted:
        found = {name: converted[name] for name in converted.files}
    (kernel,) = (value for name, value in found.items() if name.endswith("a/kernel"))
    np.testing.assert_array_equal(kernel, params["a"]["w"])


@pytest.mark.slow
def test_the_fourth_library_is_timed_and_mutated(project: Path, monkeypatch: pytest.MonkeyPatch):
    # Timing refuses to share the machine with other workers; what the figures are does not matter here.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert "linen2" in run("bench", "case.py", "--seconds", "1")
    assert "linen2" in run("selfcheck", "case.py", "--json")


@pytest.mark.slow
def test_the_fixture_takes_the_fourth_library(project: Path):
    (project / "test_own.py").write_text(TEST)
    added = f"from equiv import backends\nbackends.__path__.append({str(project / 'backends')!r})\n"
    (project / "conftest.py").write_text(added)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
