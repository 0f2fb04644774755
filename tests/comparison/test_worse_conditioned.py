"""Ports that round differently: the budget is that of the worse conditioned, and a wrong formula there is found."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from helpers import case_from, just

from equiv.comparison.frozen.bundle import decode_bundle, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.numeric import fold, held_outputs, own_runs
from equiv.comparison.numeric.own_rounding import FEW_NUDGES, OPERATION_NUDGES
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.results import CaseResult, Finding
from equiv.programs import compiled

SOURCE = """
from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    def head(y):
        return OURS

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return head(nn.Dense(4, name="l")(x))

    return Model()


def nnx(rngs):
    from flax import nnx
    import jax
    import jax.numpy as jnp

    def head(y):
        return THEIRS

    class Model(nnx.Module):
        def __init__(self):
            self.l = nnx.Linear(5, 4, rngs=rngs)

        def __call__(self, x):
            return head(self.l(x))

    return Model()


CASE = Case(
    guide="none: well and badly conditioned ways to compute",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[7,5]"},
    layers=(linear("l", linen="l", nnx="l"),),
    loss=lambda out, batch: (out**2).mean(),
    steps=2,
)
"""


def judged(ours: str, theirs: str, checks: tuple[str, ...] | None = None) -> CaseResult:
    """The case with what each port does to the output `y` of its layer."""
    loaded = loaded_case(ours, theirs)
    return run_case(replace(loaded, case=replace(loaded.case, checks=checks)))


def loaded_case(ours: str, theirs: str) -> LoadedCase:
    source = SOURCE.replace("OURS", ours).replace("THEIRS", theirs)
    return LoadedCase("conditions", "", case_from(source, "conditions"))


def output_finding(result: CaseResult) -> Finding:
    check = next(check for check in result.checks if check.check == "outputs")
    return next(finding for finding in check.findings if finding.place == "call __call__: output")


ONE_PASS = "((y + 1e3) ** 2).mean(-1) - (y + 1e3).mean(-1) ** 2"
TWO_PASSES = "(y + 1e3).var(-1)"
NORMALISED = "(lambda z, v: (z - z.mean(-1, keepdims=True)) * jax.lax.rsqrt(v + EPS))(y + 1e3, (VAR)[..., None])"

WAYS = {
    "a variance in one pass": (TWO_PASSES, ONE_PASS),
    "a normalisation with it": (
        NORMALISED.replace("VAR", TWO_PASSES).replace("EPS", "1e-5"),
        NORMALISED.replace("VAR", ONE_PASS).replace("EPS", "1e-5"),
    ),
    "a sum that cancels later": ("y - y[::-1]", "(y + 1e3) - (y[::-1] + 1e3)"),
    "a softmax by its logarithm": (
        "jax.nn.softmax(20 * y)",
        "jnp.exp(20 * y - jax.nn.logsumexp(20 * y, axis=-1, keepdims=True))",
    ),
    "the other side of a sigmoid": ("jax.nn.sigmoid(-8 * y)", "1 - jax.nn.sigmoid(8 * y)"),
    "a difference of exponentials": ("jnp.expm1(y / 1e4)", "jnp.exp(y / 1e4) - 1"),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("order", [1, pytest.param(-1, marks=pytest.mark.slow)], ids=["reference", "candidate"])
@pytest.mark.parametrize("name", WAYS)
def test_two_ways_to_compute_one_function_are_the_same(name: str, order: int) -> None:
    """Whichever port is the better conditioned."""
    result = judged(*WAYS[name][::order])
    refuted = [item for check in result.checks for item in check.findings if item.grade not in EQUAL_GRADES]
    assert not refuted
    assert result.verdicts == {"nnx": "same"}


@pytest.mark.parametrize("theirs", [ONE_PASS, f"({ONE_PASS}) * 4 / 3"])
def test_outputs_too_large_for_arrays_have_the_same_findings(theirs, monkeypatch) -> None:
    """With what the ports round, and the same reason; a wrong factor is found in them."""
    case = loaded_case(TWO_PASSES, theirs)
    whole = run_case(case)
    for module, name, value in (
        (compiled, "LARGE_TRAINING", 0),
        (held_outputs, "LARGE_OUTPUT", 8),
        (fold, "FETCHED", 0),
    ):
        monkeypatch.setattr(module, name, value)
    large = run_case(case)
    assert large.verdicts == whole.verdicts
    for one, other in zip(large.checks, whole.checks, strict=True):
        for mine, theirs_ in zip(one.findings, other.findings, strict=True):
            assert (mine.place, mine.grade, mine.precision) == (theirs_.place, theirs_.grade, theirs_.precision)
            assert mine.note.split(" by ")[0] == theirs_.note.split(" by ")[0]
    notes = [item.note for check in large.checks for item in check.findings]
    assert any("the ports round differently" in note for note in notes) == (theirs == ONE_PASS)
    assert large.verdicts == {"nnx": "same" if theirs == ONE_PASS else "different"}


@pytest.mark.parametrize(
    ("theirs", "most"), [(ONE_PASS, FEW_NUDGES), (f"({ONE_PASS}) + 1e-8 * y[..., 0]", OPERATION_NUDGES)]
)
def test_few_runs_explain_what_rounding_does(theirs: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do not explain gets all of them, and stays refuted where it is a fault."""
    made: list[int] = []
    run = own_runs.tally_runs

    def counted(tally: Any, stream: Any, base: Any, probe: Any, seeds: Sequence[int], in_float64: bool) -> None:
        made.extend(seeds)
        run(tally, stream, base, probe, seeds, in_float64)

    monkeypatch.setattr(own_runs, "tally_runs", counted)
    result = judged(TWO_PASSES, theirs)
    assert max(made) == most
    assert result.verdicts == {"nnx": "same" if most == FEW_NUDGES else "different"}


def test_the_reason_is_given_with_both_ports() -> None:
    """One pass loses digits that two passes keep, though both are proved the same in real numbers."""
    finding = output_finding(judged(*WAYS["a variance in one pass"], just("outputs")))
    assert finding.grade == "proved modulo"
    assert "the ports round differently: one ulp in every operation moves this in linen by" in finding.note


def test_what_of_a_frozen_reference_is_not_measured_is_said() -> None:
    """The worse conditioned port is frozen: only the candidate's operations can be nudged."""
    case = loaded_case(*WAYS["the other side of a sigmoid"][::-1])
    frozen = decode_bundle(encode_bundle(freeze_reference(case)), "conditions")
    result = run_case(case, options=RunOptions(against=frozen))
    remarks = [remark for check in result.checks for remark in check.remarks if "the reference is frozen" in remark]
    assert result.verdicts == {"nnx": "different"}
    assert len(remarks) == 1
    assert "compare with the reference itself" in remarks[0]


FAULTS = {
    "a variance with Bessel's correction": (TWO_PASSES, f"({ONE_PASS}) * 4 / 3"),
    "a mean that is not squared": (TWO_PASSES, "((y + 1e3) ** 2).mean(-1) - (y + 1e3).mean(-1) * 1e3"),
    "another epsilon": (WAYS["a normalisation with it"][0], WAYS["a normalisation with it"][1].replace("1e-5", "2e-5")),
    "an offset that stays": ("y - y[::-1]", "(y + 1e3) - (y[::-1] + 999.999)"),
    "a factor of the logits": (
        "jax.nn.softmax(20 * y)",
        "jnp.exp(20.0001 * y - jax.nn.logsumexp(20.0001 * y, axis=-1, keepdims=True))",
    ),
    "a slightly steeper sigmoid": ("jax.nn.sigmoid(-8 * y)", "1 - jax.nn.sigmoid(8.00001 * y)"),
    "the first term of a series": ("jnp.expm1(y / 1e4)", "(1 + y / 1e4) - 1"),
    "a value that is lost": ("y * 0.5", "(y + 1e20) - 1e20"),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_formula_in_a_bad_condition_is_found(name: str) -> None:
    """In training too, where one ulp may take a port out of the numbers: float64 decides."""
    result = judged(*FAULTS[name])
    assert output_finding(result).grade == "refuted"
    assert next(check.grade for check in result.checks if check.check == "train") == "refuted"


def test_a_cast_that_the_dtype_does_not_explain_is_found() -> None:
    """Its operations are in bfloat16, an ulp of which the float32 model does not have."""
    cast = "(jnp.tanh(z := y.astype('bfloat16')) * z).astype('float32')"
    finding = output_finding(judged("jnp.tanh(y) * y", cast, just("outputs")))
    assert (finding.grade, finding.precision) == ("refuted", "native")
    assert "rounds more than its dtype explains" in finding.note


def test_casts_at_other_places_of_both_ports_are_rounding() -> None:
    """As `dtype=bfloat16` of NNX's norms, which rounds the scale too, beside Linen's, which does not."""
    half = "jnp.tanh(y.astype('bfloat16'))"
    ours, theirs = (
        f"({half} * (y * 3 + 1)).astype('float32')",
        f"({half} * (y * 3 + 1).astype('bfloat16')).astype('float32')",
    )
    finding = output_finding(judged(ours, theirs, just("outputs")))
    assert finding.grade in EQUAL_GRADES
    assert "casts as in float64" in finding.rewrites
