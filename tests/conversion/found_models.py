"""Small models of Linen and NNX whose checkpoints are written as projects write theirs."""

from functools import cache
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.manifest import Manifest
from equiv.conversion.plan.plan import Choices
from equiv.conversion.plan.random_state import parse_random_policy
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.layers import linear, only

WIDTH, LAYERS = 4, 3


class Boxed(nn.Module):
    """Two layers with axis names: `nn.with_partitioning` and `nn.with_logical_partitioning`."""

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.lecun_normal()
        x = nn.Dense(5, kernel_init=nn.with_partitioning(init, ("in", "out")), name="hidden")(x)
        return nn.Dense(2, kernel_init=nn.with_logical_partitioning(init, ("embed", "mlp")), name="out")(nn.relu(x))


class Scanned(nn.Module):
    """Layers stacked by `nn.scan` on an axis, 1 as MaxText's `param_scan_axis`."""

    axis: int = 1

    @nn.compact
    def __call__(self, x):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return jnp.tanh(nn.Dense(WIDTH, name="mlp")(x)), None

        stack = nn.scan(Block, variable_axes={"params": self.axis}, split_rngs={"params": True}, length=LAYERS)
        return stack(name="layers")(x, None)[0]


class Unrolled(nn.Module):
    """The same layers one by one, MaxText's `scan_layers=False`."""

    @nn.compact
    def __call__(self, x):
        for index in range(LAYERS):
            x = jnp.tanh(nn.Dense(WIDTH, name=f"mlp_{index}")(x))
        return x


class TwoLayers(nnx.Module):
    """NNX's model of `Boxed`."""

    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


class ManyLayers(nnx.Module):
    """NNX's model of `Scanned`, a list of layers."""

    def __init__(self, rngs):
        self.blocks = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(LAYERS)])

    def __call__(self, x):
        for block in self.blocks:
            x = jnp.tanh(block(x))
        return x


def boxed(optimizer=None) -> Case:
    """Layers with axis names in Linen, without in NNX."""
    rows = (linear("hidden", linen="hidden", nnx="hidden"), linear("out", linen="out", nnx="out"))
    return Case("", {"linen": Boxed, "nnx": TwoLayers}, {"x": "float32[3,3]"}, rows, optimizer=optimizer)


def scanned(axis: int = 1) -> Case:
    """A stack of layers in Linen, a list of them in NNX."""
    slices = [f"[{index}]" if axis == 0 else f"[:, {index}]" for index in range(LAYERS)]
    rows = tuple(
        linear(f"block{index}", linen=f"layers/mlp{part}", nnx=f"blocks.{index}") for index, part in enumerate(slices)
    )
    return Case("", {"linen": lambda: Scanned(axis), "nnx": ManyLayers}, {"x": f"float32[3,{WIDTH}]"}, rows)


def unrolled() -> Case:
    """Layers one by one in both."""
    rows = tuple(linear(f"block{index}", linen=f"mlp_{index}", nnx=f"blocks.{index}") for index in range(LAYERS))
    return Case("", {"linen": Unrolled, "nnx": ManyLayers}, {"x": f"float32[3,{WIDTH}]"}, rows)


@cache
def params_of(model: nn.Module, width: int) -> dict:
    """The parameters of a Linen model, in their boxes, none of them zero."""
    made = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((3, width)))["params"]
    leaves, structure = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def adam() -> optax.GradientTransformation:
    """The optimizer of the tests here."""
    return optax.adam(0.1)


def take_over(case: Case, file: Path, to: str, random: str = "", **options) -> Manifest:
    """Convert a checkpoint to `new.npz` beside it."""
    choices = Choices(parse_random_policy(random) if random else None)
    request = ConversionRequest(
        file, LoadedCase("case", "", case), to, file.with_name("new.npz"), choices=choices, **options
    )
    manifest = convert_checkpoint(request)
    assert manifest is not None
    return manifest


class Dropped(nn.Module):
    """The model of `nnx_layouts/write_layout.py` in Linen."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(nn.Dense(4, name="first")(x))
        return nn.Dense(2, name="second")(nn.Dropout(0.5, deterministic=not train)(x))


class DroppedNNX(nnx.Module):
    """The same in the NNX that is installed."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.early, self.late = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.second(self.late(nnx.relu(self.first(self.early(x)))))


def dropped() -> Case:
    """Two layers with dropout, trained with adam."""
    rows = (linear("first", linen="first", nnx="first"), linear("second", linen="second", nnx="second"))
    return Case("", {"linen": Dropped, "nnx": DroppedNNX}, {"x": "float32[3,3]"}, rows, optimizer=adam)


class Apart(nn.Module):
    """Query and key, without biases."""

    @nn.compact
    def __call__(self, x):
        query, key = (nn.Dense(3, use_bias=False, name=name)(x) for name in ("query", "key"))
        return query * key


class Packed(nnx.Module):
    """Query, key and an added value in one kernel, with biases."""

    def __init__(self, rngs):
        self.qkv = nnx.Linear(4, 9, rngs=rngs)

    def __call__(self, x):
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        return query * key + value


def packed(optimizer=None) -> Case:
    """A packed leaf of which one port has two parts of three, and none of the bias."""
    rows = (
        linear("query", linen="query", nnx="qkv[..., 0:3]"),
        linear("key", linen="key", nnx="qkv[..., 3:6]"),
        linear("value", nnx="qkv[..., 6:9]"),
        *(only("nnx", f"{name}/bias", value=0) for name in ("query", "key", "value")),
        only("nnx", "value/kernel", value=0),
    )
    return Case("", {"linen": Apart, "nnx": Packed}, {"x": "float32[3,4]"}, rows, optimizer=optimizer)
