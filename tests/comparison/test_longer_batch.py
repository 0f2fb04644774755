"""Where the case's own batch does not show a leaf, a longer one is tried before it is called unidentifiable."""

from dataclasses import replace
from functools import cache

import helpers
import pytest

from equiv.comparison.longer_batch import longer_batches
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult, ProbeTrial

SOURCE = """
from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            SHAPE
            return nn.RNN(nn.SimpleCell(3))(x)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Cell(nnx.SimpleCell):
        def __call__(self, carry, inputs):
            return super().__call__(CARRY, inputs)

    return nnx.RNN(Cell(4, 3, rngs=rngs), rngs=rngs)


CASE = Case(
    guide="none",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[5,1,4]"},
    layers=(
        linear("i", linen="SimpleCell_0/i", nnx="cell.dense_i"),
        linear("h", linen="SimpleCell_0/h", nnx="cell.dense_h", bias=False),
    ),
    steps=2,
)
"""


UNTOLD = """
from equiv.case import Case
from equiv.layers import parameter


def linen():
    import flax.linen as nn
    import jax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            a, w = (self.param(name, nn.initializers.ones, shape) for name, shape in (("a", [1]), ("w", [4, 3])))
            return FORMULA

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen, "again": linen},
    batch={"x": "float32[5,1,4]"},
    layers=(parameter("a", linen="a"), parameter("w", linen="w")),
    steps=1,
)
"""


@cache
def judged(carry: str, shape: str = "pass", checks: tuple[str, ...] | None = None) -> CaseResult:
    case = helpers.case_from(SOURCE.replace("CARRY", carry).replace("SHAPE", shape), "one_step")
    return run_case(LoadedCase("one_step", "One step.", replace(case, checks=checks)))


def is_detected(result: CaseResult, leaf: str) -> bool:
    """Whether the probes show a change of a leaf."""
    (found,) = [trial.detected for trial in result.trials if (trial.kind, trial.subject) == ("moved", (leaf,))]
    return found


def longer(result: CaseResult) -> list[ProbeTrial]:
    return [trial for trial in result.trials if trial.kind == "longer batch"]


@pytest.mark.slow
def test_a_one_step_sequence_that_hides_recurrence_is_lengthened():
    result = judged("carry")
    assert result.verdicts == {"nnx": "same"}
    assert is_detected(result, "h/kernel")
    (trial,) = longer(result)
    assert trial.subject == ("x to float32[5,3,4]",)
    assert trial.note == "not noticed on the case's own batch: moved h/kernel"


def test_a_wrong_recurrence_that_one_step_hides_is_refuted():
    result = judged("0.5 * carry", checks=helpers.just("outputs"))
    assert result.verdicts == {"nnx": "different"}
    places = [
        finding.place
        for check in result.checks
        if check.check == "outputs"
        for finding in check.findings
        if finding.grade == "refuted"
    ]
    assert places == ["call __call__: output"]


def test_a_model_of_one_shape_is_judged_on_it():
    """The leaf that its one-step sequence hides is unidentifiable."""
    result = judged("carry", "assert x.shape == (5, 1, 4)")
    assert result.verdicts == {"nnx": "same"}
    assert not is_detected(result, "h/kernel")
    assert longer(result) == []


@pytest.mark.slow
def test_a_refusal_on_the_own_batch_stands():
    """One that holds for one step only: more steps would hide it."""
    result = judged("carry if inputs.shape[0] > 5 else carry + 1")
    assert result.verdicts == {"nnx": "different"}
    assert longer(result) == []


@pytest.mark.parametrize(("formula", "tried"), [("jax.nn.softmax(x @ w + a)", 0), ("x @ w + 0.0 * a", 3)])
def test_nothing_is_compared_on_batches_that_cannot_tell(formula, tried):
    """None is tried for a sum that cancels; for a leaf that is not used, the reference alone runs on each."""
    told: list[str] = []
    case = helpers.case_from(UNTOLD.replace("FORMULA", formula), "untold")
    result = run_case(LoadedCase("untold", "Untold.", case), told.append)
    assert not is_detected(result, "a")
    assert longer(result) == []
    assert sum("trying" in one for one in told) == tried
    assert sum("compiling again" in one for one in told) == 1


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (
            {"x": "float32[5,1,4]", "labels": "int32[5]:10"},
            [
                {"x": "float32[5,3,4]"},
                {"x": "float32[5,1,9]"},
                {"x": "float32[11,1,4]", "labels": "int32[11]:10"},
            ],
        ),
        ({"x": "float32[]"}, []),
    ],
)
def test_one_axis_at_a_time_is_longer_in_every_entry(batch, expected):
    case = replace(helpers.loaded("counter").case, batch=batch)
    assert [other.batch for _, other in longer_batches(case)] == [{**batch, **changed} for changed in expected]
