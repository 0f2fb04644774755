"""The fixture `equiv`: two builders of one's own, compared inside any test."""

import subprocess
from pathlib import Path

import pytest
from plugin_project import BUILDERS, outcomes, pytest_in

from equiv.core.results import RunResult
from equiv.core.results_json import read_results

TESTS = f'''"""A user's tests."""

import functools

import pytest

from equiv.case import Case
from equiv.errors import CaseError, NotRun
from equiv.layers import linear
from equiv.core.results import CaseResult

{BUILDERS}


def doubled(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x) * 2

    return Model()


def missing(rngs):
    import nonexistent_library


given = dict(batch={{"x": "float32[4,2]"}}, layers=(linear("dense", linen="dense", nnx="dense"),), steps=1)


def test_same(equiv):
    """What is asked."""
    result = equiv.check(linen, lambda rngs=None: nnx(rngs), names=("linen", "nnx"), **given)
    assert isinstance(result, CaseResult)
    assert result.verdicts == {{"nnx": "same"}}
    assert repr(result).startswith("<same: structure exact, outputs proved"), repr(result)


def test_inferred(equiv):
    """Without a layer table it is inferred; a leaf without counterpart is a mismatch."""
    inferred = {{key: value for key, value in given.items() if key != "layers"}}
    assert equiv.check(linen, nnx, **inferred).verdicts == {{"nnx": "same"}}
    with pytest.raises(equiv.Mismatch, match="nnx has no counterpart of it; same where it is 0"):
        equiv.check(linen, without_bias, **inferred)


def without_bias(rngs):
    from flax import nnx

    return nnx.Linear(2, 3, use_bias=False, rngs=rngs)


def test_numbers(equiv):
    """Not proved: its result says what came closest to its budget."""
    def other(rngs):
        model = nnx(rngs)
        call = type(model).__call__
        type(model).__call__ = lambda self, x: call(self, x) * 3 / 3
        return model

    text = repr(equiv.check(linen, other, checks=("outputs",), **given))
    assert text.startswith("<same: closest to its budget ") or "outputs proved modulo" in text, text


def test_different(equiv):
    equiv.check(linen, nnx, **given)
    equiv.check(linen, doubled, **given)


def test_one_library(equiv):
    result = equiv.check(linen, linen, **given)
    assert (result.reference, result.candidates) == ("left", ("right",))
    named = given | {{"layers": (linear("dense", old="dense", new="dense"),)}}
    assert equiv.check(linen, linen, names=("old", "new"), **named).candidates == ("new",)


def test_expected(equiv):
    with pytest.raises(equiv.Mismatch, match="^call __call__: output: ") as caught:
        equiv.check(linen, doubled, **given)
    assert repr(caught.value.result).startswith("<different: call __call__: output: ")


def test_a_missing_library_is_no_mismatch(equiv):
    with pytest.raises(equiv.NotCompared, match="^not run: .*nonexistent_library.*nnx.$") as caught:
        equiv.check(linen, missing, **given)
    assert not isinstance(caught.value, equiv.Mismatch)


@pytest.mark.equiv(checks=["structure"])
def test_marked(equiv):
    equiv.check(linen, doubled, **given)


@pytest.mark.equiv(checks=["structure"])
def test_argument_over_mark(equiv):
    with pytest.raises(equiv.NotCompared, match=r"^does not apply \\(state, nnx\\)$"):
        equiv.check(linen, nnx, checks=["outputs", "state"], **given)


@pytest.mark.equiv(require="cuda")
def test_required(equiv):
    with pytest.raises(NotRun, match="cuda is required but not available: JAX runs on cpu"):
        equiv.check(linen, nnx, **given)


BAD = [
    (dict(left=3, right=nnx), "left: got 3. Give a function"),
    (dict(left=lambda: 3, right=nnx), "left: the builder returned int, which is no model of a known library."),
    (dict(left=linen, right=nnx, checks="outputs"), "checks is 'outputs', wanted some of: structure, "),
    (dict(left=linen, right=nnx, checks=["output"]), "checks is .'output'., wanted some of: structure, "),
    (dict(left=linen, right=nnx, batch={{"x": 3}}), "test_bad_input.*: batch is .'x': 3., wanted names to text"),
    (dict(left=linen, right=nnx, steps=0), "test_bad_input.*: steps is 0, wanted a whole number"),
    (dict(left=linen, right=nnx, layers=(linear("dense", linen="dens", nnx="dense"),)), "linen"),
]


@pytest.mark.parametrize(("changed", "said"), BAD)
def test_bad_input(equiv, changed, said):
    with pytest.raises((CaseError, equiv.NotCompared), match=said):
        equiv.check(**(given | changed))


@pytest.mark.equiv(budget=3)
def test_bad_mark(equiv):
    pass


@pytest.fixture
def haiku(equiv):
    equiv.check(linen, doubled, **given)


def test_in_a_fixture(haiku):
    pass
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tests and no case."""
    folder = tmp_path_factory.mktemp("fixture")
    (folder / "test_port.py").write_text(TESTS)
    return folder


@pytest.fixture(scope="module")
def ran(folder: Path) -> subprocess.CompletedProcess[str]:
    """Its tests, run once."""
    return pytest_in(folder, "-rA", "--strict-markers", "--equiv-json=results.json", CI="1", JAX_PLATFORMS="cpu")


@pytest.fixture(scope="module")
def stored(folder: Path, ran: subprocess.CompletedProcess[str]) -> RunResult:
    """What they have written."""
    return read_results(folder / "results.json")


def test_a_check_passes_or_raises(ran):
    ended = outcomes(ran.stdout)
    assert {name for name, word in ended.items() if word == "FAILED"} == {"test_different"}, ran.stdout
    assert {name for name, word in ended.items() if word == "ERROR"} == {"test_bad_mark", "test_in_a_fixture"}
    assert len([name for name, word in ended.items() if word == "PASSED"]) == 8 + 8


def test_a_failure_is_one_line_from_place_to_check(ran):
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FAILED test_port.py::test_different")]
    (line,) = lines
    said = line.partition(" - ")[2]
    assert said.startswith("equiv.Mismatch: call __call__: output: ")
    assert said.endswith(" (outputs, nnx)")
    assert len(said) <= 116


def test_the_traceback_ends_in_the_users_test_with_a_table(ran):
    """The table is a section of its own."""
    shown = ran.stdout.partition("_ test_different _")[2].partition("\n____")[0]
    assert ">       equiv.check(linen, doubled, **given)" in shown
    assert "equiv/frontends" not in ran.stdout
    assert "Captured equiv call" in shown
    assert "✗ different  test_different-2, nnx / linen" in shown


def test_an_expected_mismatch_is_neither_shown_nor_filed(ran, stored):
    assert "test_expected, nnx" not in ran.stdout
    assert "test_expected" not in [case.name for case in stored.cases]


def test_every_other_comparison_is_filed_under_its_tests_name(stored):
    names = [case.name for case in stored.cases]
    assert {"test_same", "test_different", "test_different-2", "test_in_a_fixture"} <= set(names)
    same = next(case for case in stored.cases if case.name == "test_same")
    assert (same.lesson, same.guide) == ("What is asked.", "test_port.py::test_same")
    assert len(names) == len(set(names))


def test_an_unknown_keyword_of_the_mark_is_named(ran):
    assert "test_bad_mark: @pytest.mark.equiv takes require and checks as keywords. Fix the mark." in ran.stdout


def test_without_cases_no_environment_is_asked_for_before_the_tests(ran):
    assert "\nequiv: " not in ran.stdout
    assert "! Trouble" in ran.stdout or "✗ Not the same" in ran.stdout
