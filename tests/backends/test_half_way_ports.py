"""Half-way ports: any layer may still be the other library's, wrapped by `flax.nnx.bridge`."""

from functools import partial

import flax.linen as nn
import jax
import pytest
from flax import nnx
from flax.nnx import bridge
from helpers import just

import equiv

LAYERS = ("embed", "attention", "dense", "norm", "dropout", "head")
BATCH = {"tokens": "int32[2,5]:11"}
QUICK = 0b111111
"""The mixture of the usual suite: bit k is whether layer k is of the other library."""


LINEN_LAYERS = {
    "embed": partial(nn.Embed, 11, 8),
    "attention": partial(nn.MultiHeadDotProductAttention, num_heads=2, qkv_features=8),
    "dense": partial(nn.Dense, 8),
    "norm": nn.BatchNorm,
    "dropout": partial(nn.Dropout, 0.3),
    "head": partial(nn.Dense, 3),
}

NNX_LAYERS = {
    "embed": (nnx.Embed, (11, 8), {}),
    "attention": (nnx.MultiHeadAttention, (), {"num_heads": 2, "in_features": 8, "qkv_features": 8, "decode": False}),
    "dense": (nnx.Linear, (8, 8), {}),
    "norm": (nnx.BatchNorm, (8,), {}),
    "dropout": (nnx.Dropout, (0.3,), {}),
    "head": (nnx.Linear, (8, 3), {}),
}


def forward(layers, tokens, mode, activation):
    """Call the layers, some of which take the mode."""
    x = layers["dense"](layers["attention"](layers["embed"](tokens)))
    x = layers["norm"](x, use_running_average=not mode)
    return layers["head"](activation(layers["dropout"](x, deterministic=not mode)))


class Linen(nn.Module):
    """The model in Linen, with some layers of NNX, by number."""

    wrapped: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, tokens, train: bool = False):
        layers = {}
        for name, (kind, sizes, settings) in NNX_LAYERS.items():
            wrapped = name in self.wrapped
            own = LINEN_LAYERS[name]
            layers[name] = bridge.to_linen(kind, *sizes, **settings, name=name) if wrapped else own(name=name)
        return forward(layers, tokens, train, nn.relu)


class Nnx(nnx.Module):
    """The model in NNX, with some layers of Linen."""

    def __init__(self, wrapped, rngs):
        tokens, hidden = jax.numpy.zeros((2, 5), int), jax.numpy.zeros((2, 5, 8))
        given = {"embed": (tokens, {}), "norm": (hidden, {"use_running_average": True})}
        given["dropout"] = hidden, {"deterministic": True}
        for name, (kind, sizes, settings) in NNX_LAYERS.items():
            if name in wrapped:
                example, mode = given.get(name, (hidden, {}))
                layer = bridge.ToNNX(LINEN_LAYERS[name](), rngs=rngs).lazy_init(example, **mode)
            else:
                layer = kind(*sizes, **settings, rngs=rngs)
            setattr(self, name, layer)
        self.wrapped = wrapped

    def __call__(self, tokens, train: bool = False):
        layers = {name: getattr(self, name) for name in LAYERS}
        if "norm" in self.wrapped:
            layers["norm"] = partial(self.norm, mutable=["batch_stats"])
        return forward(layers, tokens, train, nnx.relu)


def wrong_rate(rngs):
    """All layers are Linen's, and one is not as it was."""
    model = Nnx(LAYERS, rngs)
    model.dropout.to_nnx__module = nn.Dropout(0.4)
    return model


def layers_of(number):
    return tuple(name for index, name in enumerate(LAYERS) if number >> index & 1)


def verdict(builder, checks=None):
    (case,) = equiv.compare(Linen, builder, batch=BATCH, checks=checks).cases
    (found,) = case.verdicts.values()
    return str(found)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


EVERY = [pytest.param(number, marks=() if number == QUICK else pytest.mark.slow) for number in range(2 ** len(LAYERS))]


@pytest.mark.parametrize("number", EVERY)
def test_every_mixture_is_the_same_model(number):
    checks = just("randomness", "outputs", "gradients", "state") if number == QUICK else None
    assert verdict(lambda rngs: Nnx(layers_of(number), rngs), checks) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2 ** len(LAYERS)))
def test_linen_with_layers_of_nnx_is_the_same_model(number):
    assert verdict(lambda: Linen(layers_of(number))) == "same"


@pytest.mark.slow
def test_a_fault_in_a_wrapped_layer_is_found():
    assert verdict(wrong_rate) == "different"
