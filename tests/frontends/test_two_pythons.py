"""`equiv check --left-python`: the left model is read and frozen by another interpreter, and judged by this one."""

import os
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from equiv.core.results_json import read_results
from equiv.errors import EquivError
from equiv.frontends.cli.main import main
from equiv.infer.builders import locate_builder
from equiv.infer.other_python.interpreter import start_python
from equiv.infer.session import infer_layers

LEFT = """
import os


def model():
    import haiku as hk
    import jax

    print("a model may print")
    assert os.environ.get("PYTHON_OF_MODEL") == "there"

    def forward(x):
        x = jax.nn.relu(hk.Linear(4, name="first")(x))
        query, key = hk.Linear(4, name="query")(x), hk.Linear(4, name="key")(x)
        return jax.nn.softmax(query @ key.T) @ x

    return hk.without_apply_rng(hk.transform(forward))
"""

RIGHT = """
import os


def model(rngs):
    import jax
    from flax import nnx

    assert os.environ.get("PYTHON_OF_MODEL") is None

    class Model(nnx.Module):
        def __init__(self):
            self.one, self.k, self.q = nnx.Linear(3, 4, rngs=rngs), *(nnx.Linear(4, 4, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            x = jax.nn.relu(self.one(x))
            return jax.nn.softmax(self.q(x) @ self.k(x).T) @ x

    return Model()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model for each interpreter, as the current one."""
    (tmp_path / "left.py").write_text(LEFT)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(RIGHT.replace("relu", "elu"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interpreter(folder: Path, text: str) -> str:
    """A program that stands for an interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def python(folder):
    """This interpreter in another process."""
    return interpreter(folder, f'PYTHON_OF_MODEL=there exec "{sys.executable}" "$@"')


def test_layers_are_inferred_between_two_interpreters(folder, python):
    """Ties are decided by gradients, of which each interpreter computes those of its own model."""
    with start_python(python) as other:
        builders = other.locate("left.py:model"), locate_builder("right.py:model", "right")
        found = infer_layers(builders, {"x": "float32[5,3]"})
    assert found.covered
    pairs = {str(pair.left.path): pair.right.path for pair in found.proposal.pairs}
    assert {pairs[name] for name in ("query/w", "key/w")} == {"q.kernel", "k.kernel"}
    assert pairs["query/w"] == "q.kernel"
    assert {pair.evidence for pair in found.proposal.pairs} == {"position", "gradient"}


@pytest.mark.slow
@pytest.mark.parametrize(("right", "verdict", "code"), [("right.py", "same", 0), ("wrong.py", "different", 1)])
def test_a_model_of_another_interpreter_is_judged(folder, python, right, verdict, code):
    command = ("check", "left.py:model", f"{right}:model", "--left-python", python, "--input", "float32[5,3]")
    done = CliRunner().invoke(main, [*command, "--reports", "reports"])
    assert done.exit_code == code, done.output
    result = read_results(Path("reports/results.json"))
    (case,) = result.cases
    assert (case.reference, case.verdicts) == ("frozen haiku", {"nnx": verdict})


def refusal(python: str, left: str = "left.py:model") -> str:
    with pytest.raises(EquivError, match=f"^{re.escape(python)}: ") as caught, start_python(python) as other:
        other.locate(left)
    return str(caught.value).removeprefix(f"{python}: ")


@pytest.mark.parametrize("python", ["nowhere/bin/python", "./left.py", "python_of_nobody"])
def test_an_interpreter_that_cannot_be_started_is_named(folder, python):
    wanted = "there is no such program. Give the python of the other environment: OLD/bin/python."
    assert refusal(python) == wanted


def test_a_program_that_is_no_interpreter_is_named(folder):
    assert refusal(interpreter(folder, "echo not a python; exit 1")).startswith("it ended with exit code 1.")


def test_an_interpreter_without_equiv_is_told_to_install_it(folder):
    python = interpreter(folder, f'exec env -u PYTHONPATH "{sys.executable}" -S "$@"')
    assert refusal(python) == f"equiv is not installed there. Run {python} -m pip install equiv."


def stub(folder: Path, name: str, text: str = "") -> str:
    """An interpreter whose equiv is another one."""
    path = folder / "other" / name
    path.parent.mkdir(parents=True)
    for package in (path.parent, *path.parent.parents):
        if package == folder / "other":
            break
        (package / "__init__.py").touch()
    path.write_text(text)
    return interpreter(folder, f'PYTHONPATH="{folder / "other"}" exec "{sys.executable}" -S "$@"')


def test_an_older_equiv_is_named(folder):
    python = stub(folder, "equiv/case.py")
    wanted = r"the equiv there is an older one, without equiv\.infer\. Install the one that is used here: "
    assert re.match(wanted, refusal(python))


def test_another_equiv_is_named(folder):
    text = "import pickle, sys; pickle.dump('another', sys.stdout.buffer)"
    python = stub(folder, "equiv/infer/other_python/serve.py", text)
    wanted = "the equiv there is not the one that is used here. Install the same version in both environments."
    assert refusal(python) == wanted


def test_a_library_that_is_missing_there_is_named(folder):
    python = stub(folder, "equiv/infer/other_python/serve.py", "import a_library_of_nobody")
    assert refusal(python) == f"a_library_of_nobody is not installed there. Run {python} -m pip install equiv."


def test_what_it_said_last_is_told_where_it_ends(folder):
    python = stub(folder, "equiv/infer/other_python/serve.py", "raise SystemExit('jax 0.2 is too old')")
    assert refusal(python).startswith("it ended with jax 0.2 is too old. equiv freezes with Python 3.11, jax 0.4.35 ")


def test_an_error_of_the_model_is_told_with_its_fix(folder, python):
    assert refusal(python, "left.py:nothing").startswith("left.py:nothing: left has no 'nothing'; it has model.")


def test_an_interpreter_that_is_killed_is_named(folder, python):
    with start_python(python) as other:
        other._process.kill()
        other._process.wait()
        with pytest.raises(EquivError, match="it ended with "):
            other.locate("left.py:model")


def test_no_interpreter_is_left_behind(folder, python):
    with start_python(python) as other:
        process = other._process
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
