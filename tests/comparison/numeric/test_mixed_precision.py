"""Attention in bfloat16: libraries round at other places, and what is zero in theory is nothing but rounding."""

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
import pytest
from flax import nnx

from equiv import compare

BATCH = {"x": "float32[2,5,16]"}


def in_haiku():
    """NumPy rounds the square root of the size to bfloat16."""

    class Model(hk.Module):
        def __call__(self, x):
            return hk.MultiHeadAttention(2, 8, w_init=hk.initializers.VarianceScaling(), name="attention")(x, x, x)

    def run(x):
        half = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        with hk.mixed_precision.push_policy(Model, half):
            return Model()(x)

    return hk.transform(run)


@jax.custom_vjp
def pushed(bias):
    """The identity, whose gradient has a small constant in it."""
    return bias


pushed.defvjp(lambda bias: (bias, None), lambda _, g: (g + 1e-4,))


class InNNX(nnx.Module):
    """It divides by the root in float32."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 16, dtype=jnp.bfloat16, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.attention(x.astype(jnp.bfloat16)).astype(jnp.float32)


class PushedBias(InNNX):
    """The gradient of the bias of the keys, which is zero in theory, is not."""

    def __call__(self, x):
        bias = self.attention.key.bias
        bias.set_value(pushed(bias[...]))
        return super().__call__(x)


def test_attention_in_bfloat16_is_the_same_in_all_checks():
    run = compare(in_haiku, InNNX, batch=BATCH)
    assert run.verdict == "same", run.headline


def test_a_gradient_that_is_zero_in_theory_is_compared():
    run = compare(InNNX, PushedBias, batch=BATCH, checks=("outputs", "gradients"))
    assert run.verdict == "different"
    refuted = [one.place for check in run.cases[0].checks for one in check.findings if one.grade == "refuted"]
    assert refuted
    assert all("gradient attention/key/bias" in place for place in refuted)


def rounded_root():
    """A product, divided by a square root that NumPy has rounded to float32."""

    @hk.transform
    def run(x):
        return hk.Linear(3, with_bias=False, w_init=hk.initializers.RandomNormal())(x) / np.float32(np.sqrt(8.0))

    return run


class Root(nnx.Module):
    """The same with the root itself, and perhaps a limit."""

    most = np.inf

    def __init__(self, rngs):
        self.linear = nnx.Linear(16, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        out = self.linear(x) / jnp.sqrt(8.0)
        return out if np.isinf(self.most) else jnp.minimum(out, self.most)


class LimitedRoot(Root):
    most = 100.0


@pytest.mark.parametrize(("port", "verdict"), [(Root, "same"), (LimitedRoot, "different")])
def test_a_rare_fault_beside_a_rounded_constant_is_found(port, verdict):
    """Only a probe made for the limit shows it, on which the constants are read otherwise, too."""
    run = compare(rounded_root, port, batch={"x": "float32[5,16]"}, checks=("outputs",))
    assert run.verdict == verdict, run.headline
