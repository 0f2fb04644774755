"""Where the case's own batch does not show a leaf, a longer one is tried before it is called unidentifiable."""

from dataclasses import replace
from functools import cache

import helpers
import pytest

from equiv.compare.longer_batch import longer_batches
from equiv.compare.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult

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


@cache
def judged(carry: str, shape: str = "pass") -> CaseResult:
    case = helpers.case_from(SOURCE.replace("CARRY", carry).replace("SHAPE", shape), "one_step")
    return run_case(LoadedCase("one_step", "One step.", case))


def told(result: CaseResult) -> dict[str, str]:
    return {finding.place: finding.grade for finding in result.probes}


def test_a_one_step_sequence_that_hides_recurrence_is_lengthened():
    result = judged("carry")
    assert result.verdicts == {"nnx": "same"}
    assert told(result)["moving h/kernel"] == "exact"
    (longer,) = [finding for finding in result.probes if finding.place.startswith("lengthening ")]
    assert longer.place == "lengthening x to float32[5,3,4]"
    assert longer.note == "not noticed on the case's own batch: moving h/kernel"


def test_a_wrong_recurrence_that_one_step_hides_is_refuted():
    result = judged("0.5 * carry")
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
    assert told(result)["moving h/kernel"] == "unidentifiable"
    assert not [place for place in told(result) if place.startswith("lengthening ")]


def test_a_refusal_on_the_own_batch_stands():
    """One that holds for one step only: more steps would hide it."""
    result = judged("carry if inputs.shape[0] > 5 else carry + 1")
    assert result.verdicts == {"nnx": "different"}
    assert not [place for place in told(result) if place.startswith("lengthening ")]


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
