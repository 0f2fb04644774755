"""What only edge probes show: rows, thresholds, small inputs, zeros, ties, kinks, late counters; and what they may not.

One model has an output for each fault, so that two compilations serve all of them.
"""

import re
from functools import cache

import pytest
from helpers import case_from, just

from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase

CALLS = """
from equiv.case import Case
from equiv.layers import linear


def build(wrong):
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def clip_gradient(y):
        return y * 1.0

    clip_gradient.defvjp(lambda y: (y, None), lambda _, g: (jnp.clip(g, -1e3, 1e3) if wrong else g,))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, ids, x):
            y = nn.Dense(3, name="d")(x)
            u = y * 1.0
            return OUTPUTS

    return Model()


def old():
    return build(False)


def new():
    return build(True)


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"ids": "int32[5]:700", "x": "float32[5,4]"},
    layers=(linear("d", old="d", new="d"),),
    loss=lambda outputs, batch: sum((one.astype("float32") ** 2).sum() for one in outputs.values()) * 1e-6,
    steps=2,
    checks=CHECKS,
)
"""

FAULTS = {  # output to its code, and the first words of the probe that shows it; empty: whole numbers are in each
    "a row": ("jnp.where((ids == (699 if wrong else 700))[:, None], 0.0, y)", ""),
    "a later row": ("jnp.where((ids > (697 if wrong else 698))[:, None], 0.0, y)", ""),
    "a threshold": ("jnp.where(y > (61 if wrong else 60), 0.0, y)", "around 60"),
    "a lower bound": ("jnp.maximum(y, -95.0) if wrong else y", "around -95"),
    "a small threshold": ("jnp.where(jnp.abs(y) < (2e-5 if wrong else 1e-5), 0.0, y)", "around 1e-05"),
    "overflow": ("jnp.log(jnp.exp(y).sum(-1)) if wrong else jax.nn.logsumexp(y, -1)", "around"),
    "an epsilon": (
        "y * jax.lax.rsqrt((y * y).sum(-1, keepdims=True) + (1e-30 if wrong else 1e-20))",
        "small inputs",
    ),
    "ties": ("2 - jnp.argmax(y[:, ::-1], -1) if wrong else jnp.argmax(y, -1)", "zero inputs"),
    "zero": ("y >= 0 if wrong else y > 0", "zero inputs"),
    "exactly": ("jnp.where(y >= 2, 0.0, y) if wrong else jnp.where(y > 2, 0.0, y)", "thresholds"),
}

RIGHT = {
    "clip": "jnp.where(y > 2, 2.0, jnp.where(y < -2, -2.0, y)) if wrong else jnp.clip(y, -2, 2)",
    "third": "jnp.where(y / 3 > 2 / 3, 0.0, y) if wrong else jnp.where(y > 2, 0.0, y)",
    "softmax": "jnp.exp(y - jax.nn.logsumexp(y, -1, keepdims=True)) if wrong else jax.nn.softmax(y)",
    "swish": "y / (1 + jnp.exp(-y)) if wrong else y * jax.nn.sigmoid(y)",
    "elu": "jnp.where(y > 0, y, jnp.exp(jnp.minimum(y, 0)) - 1) if wrong else jax.nn.elu(y)",
    "norm": (
        "(y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(((y - y.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True)"
        " + 1e-6) if wrong else (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)"
    ),
    "row": "jnp.where((ids > 698)[:, None], 0.0, y) if wrong else jnp.where((ids >= 699)[:, None], 0.0, y)",
    "abs": "jnp.sqrt(y * y) if wrong else jnp.abs(y)",
}


def compared(source, *checks):
    return run_case(LoadedCase("edges", "Edges.", case_from(source.replace("CHECKS", repr(just(*checks))), "edges")))


@cache
def faulty():
    outputs = ", ".join(f"{name!r}: {code}" for name, (code, _) in FAULTS.items())
    return compared(CALLS.replace("OUTPUTS", f"{{{outputs}}}"), "outputs")


@cache
def right():
    outputs = ", ".join(f"{name!r}: {code}" for name, code in RIGHT.items())
    return compared(CALLS.replace("OUTPUTS", f"{{{outputs}}}"), "outputs", "gradients")


def findings(result, check):
    (found,) = [one for one in result.checks if one.check == check]
    return {one.output.path: one for one in found.findings}


@pytest.mark.parametrize(("name", "probe"), [(name, probe) for name, (_, probe) in FAULTS.items()])
def test_a_rare_difference_of_values_is_found(name, probe):
    assert faulty().verdicts == {"new": "different"}
    finding = findings(faulty(), "outputs")[name]
    assert finding.grade == "refuted"
    assert finding.probe.startswith(probe)
    assert "which only a probe made for it shows" in finding.note


@pytest.mark.slow
def test_right_variants_are_the_same_at_edges():
    assert right().verdicts == {"new": "same"}
    assert {one.grade for one in findings(right(), "outputs").values()} <= {
        "proved",
        "proved modulo",
        "exact",
        "float64",
        "rounding",
    }


def test_gradients_that_differ_only_at_kinks_are_a_remark():
    (gradients,) = [one for one in right().checks if one.check == "gradients"]
    assert any(
        "at exactly 0 the gradients differ, and agree on ordinary values" in remark for remark in gradients.remarks
    )


def test_gradients_that_overflow_in_one_port_are_told():
    """Those of `y / (1 + exp(-y))` do, beyond what any ordinary input is; within that they are refuted."""
    (gradients,) = [one for one in right().checks if one.check == "gradients"]
    (remark,) = (one for one in gradients.remarks if "finite in one port alone" in one)
    assert re.match(
        r"with x times \d[\d.]* \(up to \d[\d.]*\) gradients are finite in one port alone, and values", remark
    )
    assert "(old), nan (new) in " in remark


def test_the_scope_names_the_edge_probes():
    scope = right().scope
    assert {"small inputs", "zero inputs", "zeros", "thresholds"} <= set(scope.edges)
    assert "; tried too: " in scope.text


TRAINING = """
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from equiv.case import Case
from equiv.layers import linear

LAYERS = tuple("LETTERS")


def build(wrong):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return {name: nn.Dense(2, name=name)(x) for name in LAYERS}

    optimizer = optax.multi_transform(OPTIMIZERS, {name: name for name in LAYERS})
    apply = Model().apply

    def create(params):
        return TrainState.create(apply_fn=apply, params=params, tx=optimizer)

    def train_step(state, batch):
        def loss(params):
            return sum(jnp.mean((one - 1.0) ** 2) for one in apply({"params": params}, batch["x"]).values())

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    return Model(), train_step, create


def old():
    return build(False)


def new():
    return build(True)


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"x": "float32[5,4]"},
    layers=tuple(linear(name, old=name, new=name) for name in LAYERS),
    steps=3,
    checks=CHECKS,
)
"""

LATE = {
    "a": ("optax.sgd(optax.piecewise_constant_schedule(0.1, {7 if wrong else 6: 0.1}))", "counters"),
    "b": (
        "optax.sgd(optax.piecewise_constant_schedule(0.1, {1001 if wrong else 1000: 0.1}))",
        "counters",
    ),
    "c": ("optax.MultiSteps(optax.sgd(0.1), 16 if wrong else 8).gradient_transformation()", "counters"),
    "d": ("optax.adam(0.1, eps=1e-24 if wrong else 1e-16)", "small gradients"),
    "e": ("optax.chain(optax.clip_by_global_norm(1e3) if wrong else optax.identity(), optax.sgd(0.1))", "around 1000"),
}
"""Layer to its optimizer, and the first word of the probe that shows the fault."""

EQUAL = {
    "a": "optax.sgd((lambda c: 0.05 * (1 + jnp.cos(jnp.pi * jnp.minimum(c, 900) / 900))) if wrong "
    "else optax.cosine_decay_schedule(0.1, 900))",
    "b": "optax.adam((lambda c: 0.1 * jnp.exp(jnp.log(0.9) * c / 50)) if wrong "
    "else optax.exponential_decay(0.1, 50, 0.9))",
}


def trained(optimizers):
    """Two ports with a layer for each optimizer, compared."""
    text = f"{{{', '.join(f'{name!r}: {code}' for name, code in optimizers.items())}}}"
    return compared(TRAINING.replace("OPTIMIZERS", text).replace("LETTERS", "".join(optimizers)), "train")


def worst_probes(result):
    (train,) = [one for one in result.checks if one.check == "train"]
    refuted = [one for one in train.findings if one.grade == "refuted" and one.output.kind == "leaf"]
    return {one.output.leaf.split("/")[0]: one.probe for one in refuted}


@pytest.mark.quick(1)
@pytest.mark.parametrize("layers", ["ade", "abcdef"])
def test_late_steps_small_gradients_and_large_ones_are_tried(layers):
    """A layer without a fault is trained in the same way."""
    wrong = {name: LATE[name] for name in layers if name in LATE}
    found = worst_probes(trained({name: LATE[name][0] if name in LATE else "optax.sgd(0.1)" for name in layers}))
    assert set(found) == set(wrong)
    assert {name: probe.startswith(wrong[name][1]) for name, probe in found.items()} == dict.fromkeys(wrong, True)


@pytest.mark.slow
def test_equal_schedules_written_otherwise_are_the_same_late():
    result = trained(EQUAL)
    assert result.verdicts == {"new": "same"}
    assert {899, 900, 10, 100, 1000, 100_000} <= set(result.scope.late_steps)
    assert "3 train steps, and steps 10, " in result.scope.text
