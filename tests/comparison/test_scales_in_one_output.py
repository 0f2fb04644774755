"""Outputs with values of several scales: masks, giant columns. What is small is judged at its own scale."""

from dataclasses import replace

import pytest
from helpers import case_from, just

from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.results import CaseResult

SOURCE = """
from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    def wrap(y, keep):
        return OURS

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return wrap(nn.Dense(4, name="l")(x), jnp.arange(4) < 3)

    return Model()


def nnx(rngs):
    from flax import nnx
    import jax
    import jax.numpy as jnp

    def wrap(y, keep):
        return THEIRS

    class Model(nnx.Module):
        def __init__(self):
            self.l = nnx.Linear(5, 4, rngs=rngs)

        def __call__(self, x):
            return wrap(self.l(x), jnp.arange(4) < 3)

    return Model()


def loss(outputs, batch):
    import jax

    return -jax.nn.log_softmax(outputs)[:, 0].mean()


CASE = Case(
    guide="none: values of several scales",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[7,5]"},
    layers=(linear("l", linen="l", nnx="l"),),
    loss=loss,
    steps=2,
)
"""


def judged(ours: str, theirs: str, checks: tuple[str, ...] | None = just("outputs")) -> CaseResult:
    """The case with what each port does to the four logits `y`, of which it keeps three."""
    case = case_from(SOURCE.replace("OURS", ours).replace("THEIRS", theirs), "scales")
    return run_case(LoadedCase("scales", "", replace(case, checks=checks)))


MASKS = {
    "-1e30": "-1e30",
    "smallest": "jnp.finfo(y.dtype).min",
    "infinity": "-jnp.inf",
    "-1e9": "-1e9",
}
LOG = "jax.nn.log_softmax(jnp.where(keep, y, -1e9))"
OTHER_ORDER = "jnp.where(keep, y, -1e9) - jax.nn.logsumexp(jnp.where(keep, y, -1e9), axis=-1, keepdims=True)"


def output_finding(result: CaseResult):
    check = next(check for check in result.checks if check.check == "outputs")
    return next(finding for finding in check.findings if finding.place == "call __call__: output")


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "mask", [pytest.param(mask, marks=pytest.mark.slow) if mask in ("-1e9", "smallest") else mask for mask in MASKS]
)
def test_raw_logits_are_no_log_probabilities_under_a_mask(mask: str) -> None:
    value = MASKS[mask]
    result = judged(f"jnp.where(keep, y, {value})", f"jnp.where(keep, {LOG}, {value})")
    finding = output_finding(result)
    assert (result.verdicts["nnx"], finding.grade) == ("different", "refuted")
    assert finding.index[1] < 3


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "mask", [pytest.param(mask, marks=pytest.mark.slow) if mask in ("-1e9", "smallest") else mask for mask in MASKS]
)
def test_the_same_log_probabilities_under_a_mask_are_the_same(mask: str) -> None:
    """Written in another order, which no rewrite proves."""
    value = MASKS[mask]
    result = judged(f"jnp.where(keep, {LOG}, {value})", f"jnp.where(keep, {OTHER_ORDER}, {value})")
    assert output_finding(result).grade in EQUAL_GRADES
    assert output_finding(result).nonfinite == (0, 0)


FAULTS = {
    "logits and one more": ("jnp.where(keep, y, -1e30)", "jnp.where(keep, y + 1, -1e30)"),
    "a giant copy beside them": (
        "jnp.concatenate([1e12 * y, y], -1)",
        "jnp.concatenate([1e12 * y, y * (1 + 1e-4)], -1)",
    ),
    "a giant row": (
        "y * jnp.where(jnp.arange(7) == 3, 1e15, 1)[:, None]",
        "(y + 1e-3 * (jnp.arange(7) != 3)[:, None]) * jnp.where(jnp.arange(7) == 3, 1e15, 1)[:, None]",
    ),
    "a tiny column": (
        "jnp.where(keep, y, 1e-12 * y)",
        "jnp.where(keep, y, 1.01e-12 * y)",
    ),
    "zeros that are not": (
        "jnp.concatenate([1e12 * y, jax.nn.relu(y)], -1)",
        "jnp.concatenate([1e12 * y, jax.nn.leaky_relu(y, 1e-3)], -1)",
    ),
    "infinity of the other sign": ("jnp.where(keep, y, -jnp.inf)", "jnp.where(keep, y, jnp.inf)"),
    "infinity in another column": (
        "jnp.where(keep, y, -jnp.inf)",
        "jnp.where(keep[::-1], y, -jnp.inf)",
    ),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_what_is_small_is_found(name: str) -> None:
    assert output_finding(judged(*FAULTS[name])).grade == "refuted"


HONEST = {
    "a giant copy beside them": (
        "jnp.concatenate([1e12 * y, jax.nn.softmax(y)], -1)",
        "jnp.concatenate([y * 1e12, jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True)], -1)",
    ),
    "probabilities of all sizes": (
        "jax.nn.softmax(20 * y)",
        "jnp.exp(d := 20 * y - 20 * y.max(-1, keepdims=True)) / jnp.sum(jnp.exp(d), -1, keepdims=True)",
    ),
    "differences that are small by chance": (
        "jnp.concatenate([1e12 * y, (3 * y + 1) - (3 * y[::-1] + 1)], -1)",
        "jnp.concatenate([1e12 * y, 3 * (y - y[::-1])], -1)",
    ),
    "zeros of a rectifier": (
        "jnp.concatenate([1e12 * y, jax.nn.relu(y - y.mean(-1, keepdims=True))], -1)",
        "jnp.concatenate([1e12 * y, jnp.maximum(y - y.sum(-1, keepdims=True) / 4, 0)], -1)",
    ),
    "rows without a finite logit": (
        "jnp.where((jnp.arange(7) > 1)[:, None], jax.nn.softmax(y), jnp.nan)",
        "jnp.where((jnp.arange(7) > 1)[:, None], jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True), jnp.nan)",
    ),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", HONEST)
def test_honest_ports_with_several_scales_are_the_same(name: str) -> None:
    assert output_finding(judged(*HONEST[name], checks=None)).grade in EQUAL_GRADES
