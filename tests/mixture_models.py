"""A model of six layers, any of which may be the other library's, wrapped by `flax.nnx.bridge`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from flax.nnx import bridge

LAYERS = ("dense", "norm", "attention", "stats", "dropout", "block")
MIXTURES = 2 ** len(LAYERS)
BATCH = {"x": "float32[3,5,6]"}
INPUTS, WIDTH, HIDDEN, HEADS = 6, 8, 12, 2


@dataclass(frozen=True)
class Settings:
    """What a layer has besides arrays, equal in both libraries unless a fault is planted."""

    epsilon: float = 1e-5
    momentum: float = 0.9
    rate: float = 0.3
    activation: Callable[[Any], Any] = field(default=nn.gelu)


class LinenBlock(nn.Module):
    """A residual block in Linen."""

    activation: Callable[[Any], Any]

    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(WIDTH, name="down")(self.activation(nn.Dense(HIDDEN, name="up")(x)))


class NnxBlock(nnx.Module):
    """The residual block in NNX."""

    def __init__(self, activation, *, rngs):
        self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return x + self.down(self.activation(self.up(x)))


def of_linen(layer: str, has: Settings) -> Callable[..., nn.Module]:
    """The class of a layer in Linen, with its settings."""
    return {
        "dense": partial(nn.Dense, WIDTH),
        "norm": partial(nn.LayerNorm, epsilon=has.epsilon),
        "attention": partial(nn.MultiHeadDotProductAttention, num_heads=HEADS, qkv_features=WIDTH),
        "stats": partial(nn.BatchNorm, momentum=has.momentum, epsilon=has.epsilon),
        "dropout": partial(nn.Dropout, has.rate),
        "block": partial(LinenBlock, has.activation),
    }[layer]


def of_nnx(layer: str, has: Settings) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
    """The class of a layer in NNX, and its arguments without `rngs`."""
    heads = {"num_heads": HEADS, "in_features": WIDTH, "qkv_features": WIDTH, "decode": False}
    return {
        "dense": (nnx.Linear, (INPUTS, WIDTH), {}),
        "norm": (nnx.LayerNorm, (WIDTH,), {"epsilon": has.epsilon}),
        "attention": (nnx.MultiHeadAttention, (), heads),
        "stats": (nnx.BatchNorm, (WIDTH,), {"momentum": has.momentum, "epsilon": has.epsilon}),
        "dropout": (nnx.Dropout, (has.rate,), {}),
        "block": (NnxBlock, (has.activation,), {}),
    }[layer]


def forward(layers: dict[str, Any], x: Any, train: bool) -> Any:
    """Call the layers; those that have a mode are given it."""
    x = layers["norm"](layers["dense"](x))
    x = layers["stats"](x + layers["attention"](x), use_running_average=not train)
    return layers["block"](layers["dropout"](x, deterministic=not train))


class LinenHost(nn.Module):
    """The model in Linen, with some layers of NNX in `bridge.to_linen`."""

    wrapped: tuple[str, ...] = ()
    faulty: str = ""
    fault: Settings = Settings()

    @nn.compact
    def __call__(self, x, train: bool = False):
        layers = {}
        for name in LAYERS:
            has = self.fault if name == self.faulty else Settings()
            if name in self.wrapped:
                kind, sizes, settings = of_nnx(name, has)
                layers[name] = bridge.to_linen(kind, *sizes, **settings, name=name)
            else:
                layers[name] = of_linen(name, has)(name=name)
        return forward(layers, x, train)


class NnxHost(nnx.Module):
    """The model in NNX, with some layers of Linen in `bridge.ToNNX`."""

    def __init__(self, wrapped=(), faulty="", fault=None, *, rngs):
        modes = {"stats": {"use_running_average": True}, "dropout": {"deterministic": True}}
        for name in LAYERS:
            has = fault if name == faulty else Settings()
            if name in wrapped:
                example = jnp.zeros((3, 5, INPUTS if name == "dense" else WIDTH))
                layer = bridge.ToNNX(of_linen(name, has)(), rngs=rngs).lazy_init(example, **modes.get(name, {}))
            else:
                kind, sizes, settings = of_nnx(name, has)
                layer = kind(*sizes, **settings, rngs=rngs)
            setattr(self, name, layer)
        self.updates = "stats" in wrapped

    def __call__(self, x, train: bool = False):
        layers = {name: getattr(self, name) for name in LAYERS}
        if self.updates:
            layers["stats"] = partial(self.stats, mutable=["batch_stats"])
        return forward(layers, x, train)


HOSTS = ("nnx", "linen")
"""The library of the model around the layers."""

FAULTS = {
    "epsilon of the layer norm": ("norm", Settings(epsilon=1e-3)),
    "epsilon of the batch norm": ("stats", Settings(epsilon=1e-3)),
    "momentum of the batch norm": ("stats", Settings(momentum=0.99)),
    "rate of the dropout": ("dropout", Settings(rate=0.4)),
    "activation of the block": ("block", Settings(activation=partial(nn.gelu, approximate=False))),
}


def layers_of(number: int) -> tuple[str, ...]:
    """The wrapped layers of a mixture: bit k of its number is layer k."""
    return tuple(name for index, name in enumerate(LAYERS) if number >> index & 1)


def builder_of(host: str, number: int, fault: str = "") -> Callable[..., Any]:
    """The builder of a mixture, with a fault of `FAULTS` if one is named."""
    faulty, has = FAULTS.get(fault, ("", Settings()))
    if host == "linen":
        return lambda: LinenHost(layers_of(number), faulty, has)
    return lambda rngs: NnxHost(layers_of(number), faulty, has, rngs=rngs)
