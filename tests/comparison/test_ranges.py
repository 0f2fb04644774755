"""Ports in narrow dtypes: what overflows in one of them only is a difference, and what does not is none."""

from dataclasses import replace
from functools import cache

import pytest
from helpers import case_from

from equiv.comparison.case_result import make_case_result
from equiv.comparison.frozen.against import open_against
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.ranges import probe_ranges
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import CaseState, advance
from equiv.core.case_files import LoadedCase
from equiv.core.results import Finding
from equiv.programs.prover.proof import FLOAT64_CASTS

SOURCE = """
import jax, jax.numpy as jnp
from equiv.case import Case
from equiv.layers import linear

NARROW, WIDE = jnp.DTYPE, jnp.float32


def build(function):
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Dense(8, dtype=NARROW, param_dtype=NARROW, name="d")(x)
            return function(y, y.astype(WIDE))

    return Model()


def old():
    return build(lambda y, w: {name: one.astype(NARROW) for name, one in OLD(y, w).items()})


def new():
    return build(lambda y, w: {name: one.astype(NARROW) for name, one in NEW(y, w).items()})


def OLD(y, w):
    return {PAIRS_OLD}


def NEW(y, w):
    return {PAIRS_NEW}


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"x": "DTYPE[5,4]"},
    layers=(linear("d", old="d", new="d"),),
    steps=1,
)
"""

RMS = "V / jnp.sqrt(jnp.mean(V * V, -1, keepdims=True) + 1e-3)"
LAYER_NORM = "(V - V.mean(-1, keepdims=True)) / jnp.sqrt(V.var(-1, keepdims=True) + 1e-3)"
SMALL = "V * 1e-3 / jnp.sqrt(jnp.mean((V * 1e-3) ** 2, -1, keepdims=True))"

DIFFERENT = {
    "rms_norm": (RMS, "w", "y"),
    "layer_norm": (LAYER_NORM, "w", "y"),
    "root_mean_square": ("jnp.sqrt(jnp.mean(V * V))", "w", "y"),
    "mean_of_many": ("jnp.sum(jnp.abs(V)) / 64", "w", "y"),
    "loss": ("jnp.sqrt(jnp.mean(jnp.abs(V - 3.0) ** 2))", "w", "y"),
    "scaled_logits": ("VS", "(y / 16) @ y.T", "(y @ y.T) / 16"),
    "softmax": ("VS", "jnp.exp(y) / jnp.sum(jnp.exp(y), -1, keepdims=True)", "jax.nn.softmax(y, -1)"),
    "log_sum_exp": ("VS", "jnp.log(jnp.sum(jnp.exp(y), -1))", "jax.nn.logsumexp(y, -1)"),
    "small": (SMALL, "w", "y"),
}
"""Name to a formula and what stands for V in each port, one of which overflows or underflows."""

LEAVES = dict.fromkeys(DIFFERENT, "new overflows, old does not") | {
    "softmax": "old overflows, new does not",
    "log_sum_exp": "old overflows, new does not",
    "small": "new underflows, old does not",
}

ATTENTION = "jax.nn.softmax(VS, -1) @ w"

ALIKE = {
    "rms_norm_in_float32": (
        "VS",
        RMS.replace("V", "w"),
        "w * jax.lax.rsqrt(jnp.mean(w * w, -1, keepdims=True) + 1e-3)",
    ),
    "attention_in_float32": (ATTENTION, "(w / 4) @ w.T", "(w @ w.T) / 4"),
    "both_overflow": ("VS", "y * y * y", "y * (y * y)"),
    "sum_in_another_order": ("VS", "y[:, 0] + y[:, 1] + y[:, 2]", "y[:, 2] + y[:, 1] + y[:, 0]"),
    "sigmoid": ("jax.nn.sigmoid(V)", "w", "y"),
    "softmax": ("jax.nn.softmax(V, -1)", "w", "y"),
    "tanh": ("jnp.tanh(V * 2)", "w", "y"),
}


def source(pairs: dict[str, tuple[str, str, str]], dtype: str) -> str:
    """A case whose ports return all formulas of these pairs."""

    def written(number: int) -> str:
        formulas = ((name, pair[0].replace("VS", "V"), pair[number]) for name, pair in pairs.items())
        return ", ".join(f"{name!r}: {formula.replace('V', value)}" for name, formula, value in formulas)

    text = SOURCE.replace("PAIRS_OLD", written(1)).replace("PAIRS_NEW", written(2))
    return text.replace("DTYPE", dtype)


def loaded(pairs: dict[str, tuple[str, str, str]], dtype: str = "float16") -> LoadedCase:
    return LoadedCase("ranges", "", case_from(source(pairs, dtype), "ranges"))


def compared(case: LoadedCase, probe: bool = True) -> CaseState:
    """The outputs of a case compared, gradients and training left out."""
    stages = (trace_ports, prove_ports, start_compiling, run_reference, check_candidates)
    state = check_structure(open_case(replace(case.case, checks=("outputs",))))
    return advance(state, (*stages, probe_ranges) if probe else stages)


def outputs(state: CaseState) -> dict[str, Finding]:
    """Output to its finding."""
    check = next(one for one in state.checks if one.check == "outputs")
    return {one.output.path.strip("/"): one for one in check.findings if one.output is not None}


@cache
def judged(kind: str) -> CaseState:
    return compared(loaded({"different": DIFFERENT, "alike": ALIKE}[kind]))


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_one_port_alone_overflows_in_is_refuted(name: str) -> None:
    """By the range probe alone: every other probe has them equal."""
    finding = outputs(judged("different"))[name]
    assert (finding.grade, finding.probe) == ("refuted", "range")
    assert finding.note.endswith(LEAVES[name])
    assert " at ranges.py (patched):" in finding.note, "the line of the operation"


@pytest.mark.parametrize("name", ALIKE)
def test_what_overflows_alike_is_no_difference(name: str) -> None:
    assert outputs(judged("alike"))[name].grade in ("proved", "proved modulo", "float64", "exact", "rounding")


def test_the_range_that_was_tried_is_in_the_scope() -> None:
    result = make_case_result(loaded(ALIKE), judged("alike"))
    assert result.scope is not None
    assert result.scope.range_texts == (
        "new: the range of float16 from 6.1e-05 to 65504 was tried but for its last factor of two, "
        "by scaling x, all leaves, x and all leaves, d/kernel, d/bias",
    )
    assert result.scope.cast_dtypes == ("float16", "float32")


def test_a_range_as_wide_as_float32s_is_not_tried() -> None:
    """bfloat16 has the exponents of float32: leaving casts out is named, and nothing else is run."""
    state = compared(loaded({"rms_norm": DIFFERENT["rms_norm"]}, "bfloat16"))
    found = outputs(state)["rms_norm"]
    assert (found.grade, state.ranges) == ("proved modulo", ())
    assert FLOAT64_CASTS in found.rewrites


@pytest.mark.slow
def test_a_whole_run_tells_what_overflows() -> None:
    """Gradients and training too; with `--prove-only` the range is open."""
    case = loaded({"rms_norm": DIFFERENT["rms_norm"]})
    result = run_case(case)
    assert result.verdicts == {"new": "different"}
    assert {one.check: one.grade for one in result.checks}["gradients"] == "refuted"
    assert run_case(case, options=RunOptions(prove_only=True)).verdicts == {"new": "inconclusive"}


def test_a_frozen_reference_says_that_its_range_is_open() -> None:
    case = loaded({"rms_norm": DIFFERENT["rms_norm"]})
    asked = replace(case, case=replace(case.case, checks=("outputs",)))
    state = open_against(asked, freeze_reference(case))
    state = advance(check_structure(state), (trace_ports, prove_ports, start_compiling))
    (tried,) = probe_ranges(check_candidates(state)).ranges
    assert tried.text.startswith("the range of float16 from 6.1e-05 to 65504 was not tried: a frozen reference")
