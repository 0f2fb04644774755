"""Gradients in both modes: a port that differs in the gradient of one mode alone is different, and it is said where."""

from dataclasses import replace

import pytest
from helpers import case_from

from equiv.comparison.certify import certify_proofs
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.prove_only import check_by_proof
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    explain_differences,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import advance
from equiv.core.case_files import LoadedCase
from equiv.core.output_name import ProgramName

SOURCE = """
from equiv.case import Case
from equiv.layers import linear


def linen(stopped, factor):
    import flax.linen as nn
    import jax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            first = nn.Dense(4, name="first")(x)
            if training in stopped:
                first = jax.lax.stop_gradient(first)
            return nn.Dense(2, name="last")(first * (factor if training else 1))

    return Model()


def haiku(stopped, factor):
    import haiku as hk
    import jax

    def forward(x, is_training):
        first = hk.Linear(4, name="first")(x)
        if is_training in stopped:
            first = jax.lax.stop_gradient(first)
        return hk.Linear(2, name="last")(first * (factor if is_training else 1))

    return hk.transform_with_state(forward)


def nnx(stopped, factor):
    import jax
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
            self.deterministic = False

        def __call__(self, x):
            first, train = self.first(x), not self.deterministic
            if train in stopped:
                first = jax.lax.stop_gradient(first)
            return self.last(first * (factor if train else 1))

    return lambda rngs: Model(rngs)


def build(library, *stopped):
    def model():
        return library(stopped, FACTOR)

    def with_rngs(rngs):
        return library(stopped, FACTOR)(rngs)

    return with_rngs if library is nnx else model


FACTOR = 2
BUILDERS = {"haiku": build(haiku), "linen": build(linen), "nnx": build(nnx)} | {
    f"{library.__name__} {mode}": build(library, mode == "train")
    for library in (haiku, linen, nnx)
    for mode in ("eval", "train")
}
CASE = Case(
    guide="none",
    models={name: BUILDERS[name] for name in NAMES},
    batch={"x": "float32[5,3]"},
    layers=tuple(linear(name, haiku=name, linen=name, nnx=name) for name in ("first", "last")),
    steps=2,
)
"""
WRONG = {f"{library} eval": "eval gradient" for library in ("haiku", "linen", "nnx")} | {"linen train": "gradient"}
EVAL, TRAIN = (ProgramName(kind, "__call__") for kind in ("eval gradient", "gradient"))


def case_of(*names, factor=2):
    source = SOURCE.replace("NAMES", repr(("haiku", *names))).replace("FACTOR = 2", f"FACTOR = {factor}")
    return case_from(source, "modes")


def prove(case):
    """The case traced and proved, without its train steps, which would be compiled too."""
    state = trace_ports(check_structure(open_case(case)))
    calls = {
        name: replace(one, programs=replace(one.programs, begin=None, step=None)) for name, one in state.traced.items()
    }
    return prove_ports(replace(state, traced=calls))


@pytest.fixture(scope="module")
def proved():
    return prove(case_of("nnx", *WRONG))


@pytest.fixture(scope="module")
def checked(proved):
    return advance(proved, (start_compiling, run_reference, check_candidates, explain_differences))


def gradients(state, candidate):
    """The findings of a candidate's gradients, by place."""
    (check,) = [one for one in state.checks if (one.check, one.candidate) == ("gradients", candidate)]
    return {finding.place: finding for finding in check.findings}


@pytest.mark.parametrize("candidate", WRONG)
def test_a_gradient_stopped_in_one_mode_is_different(checked, candidate):
    refuted = {place: one for place, one in gradients(checked, candidate).items() if one.grade == "refuted"}
    leaves = ("batch/x", "first/bias", "first/kernel")
    assert set(refuted) == {f"{WRONG[candidate]} __call__: gradient {leaf}" for leaf in leaves}
    assert all(finding.first_differences for finding in refuted.values())


def test_a_right_port_has_every_gradient_proved_in_both_modes(checked):
    found = gradients(checked, "nnx")
    assert {one.grade for one in found.values()} == {"proved"}
    assert {one.output.program for one in found.values()} == {EVAL, TRAIN}


def test_only_eval_gradients_without_proof_are_run(checked):
    ran = {name: {part.name for part in wait().native.programs.parts} for name, wait in checked.compiling.items()}
    assert {name for name, programs in ran.items() if EVAL in programs} == {
        "haiku", *(name for name in WRONG if name.endswith("eval"))
    }  # fmt: skip
    assert all(TRAIN in programs for programs in ran.values())


def test_an_unproved_eval_gradient_is_named_by_prove_only(proved):
    found = gradients(check_by_proof(proved), "linen eval")
    assert {place for place, one in found.items() if one.grade == "not run"} == {
        f"eval gradient __call__: gradient {leaf}" for leaf in ("batch/x", "first/bias", "first/kernel")
    }


def test_certificates_have_the_gradients_in_both_modes(proved):
    (certificate,) = [one for name, one in certify_proofs("modes", proved) if name == "nnx"]
    assert not certificate.left_out
    names = {tuple(program["name"]) for program in certificate.data["programs"]}
    assert {("gradient", "__call__"), ("eval gradient", "__call__")} <= names


def test_modes_that_are_the_same_program_are_computed_once():
    state = prove(case_of("linen eval", "linen", factor=1))
    same = {name: traced.programs.same_in_train_mode(EVAL) for name, traced in state.traced.items()}
    assert same == {"haiku": TRAIN, "linen": TRAIN, "linen eval": None}
    checked = advance(state, (start_compiling, run_reference, check_candidates))
    assert {one.grade for one in gradients(checked, "linen").values()} == {"proved"}
    grades = {place: one.grade for place, one in gradients(checked, "linen eval").items()}
    assert {place.partition(" __call__")[0] for place, grade in grades.items() if grade == "refuted"} == {
        "eval gradient"
    }


def test_a_frozen_reference_has_gradients_in_both_modes():
    case = LoadedCase("modes", "Modes.", case_of("linen eval"))
    result = run_case(case, options=RunOptions(against=freeze_reference(case)))
    assert result.verdicts == {"linen eval": "different"}
    assert "__call__(x) in eval and train mode, gradients in eval and train mode; " in result.scope.text
