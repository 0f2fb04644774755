"""Ports with a bug are mapped: where gradients do not decide, the order of parts and uses does, or a leaf is alone."""

import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from infer_ports import inferred, pure

from equiv import compare

BATCH = {"x": "float32[2,5,6]"}
WIDTH = 8
PARTS = ("first", "second", "third")
"""Names that say nothing of query, key and value."""


def causal(x, offset=0):
    return jnp.where(jnp.tril(jnp.ones((x.shape[-2], x.shape[-1]), bool), offset), x, -1e9)


def attend(q, k, v, mask=causal, scale=WIDTH**-0.5):
    return jax.nn.softmax(mask(jnp.einsum("btd,bsd->bts", q, k) * scale)) @ v


def in_parts(p, x):
    """Query, key and value of one kernel and one bias."""
    return jnp.split(x @ p["c"] + p["c_bias"], 3, -1)


def separate(p, x):
    return [x @ p[name] + p[f"{name}_bias"] for name in PARTS]


def two_layers(project, shapes, attend=attend, final=jnp.tanh):
    """Two layers of attention with a residual, and a head; the port's function and the shapes of its leaves."""

    def run(p, x):
        for layer in range(2):
            own = {name.split("/")[1]: leaf for name, leaf in p.items() if name.startswith(f"{layer}/")}
            x = x + attend(*project(own, x)) @ own["out"]
        return final(x) @ p["head"]

    every = {f"{layer}/{name}": shape for layer in range(2) for name, shape in shapes.items()}
    return run, {**every, "head": (6, 2)}


PACKED = {"c": (6, 3 * WIDTH), "c_bias": (3 * WIDTH,), "out": (WIDTH, 6)}
THREE = dict.fromkeys(PARTS, (6, WIDTH)) | {f"{name}_bias": (WIDTH,) for name in PARTS} | {"out": (WIDTH, 6)}
BUGS = {
    "no mask": {"attend": lambda q, k, v: attend(q, k, v, mask=lambda x: x)},
    "no scale": {"attend": lambda q, k, v: attend(q, k, v, scale=1.0)},
    "mask off by one": {"attend": lambda q, k, v: attend(q, k, v, mask=lambda x: causal(x, -1))},
    "no activation": {"final": lambda x: x},
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("packed_first", [True, False])
def test_parts_of_a_nameless_leaf_are_paired_in_order(bug, packed_first):
    (packs, ours), (right, theirs) = two_layers(in_parts, PACKED), two_layers(separate, THREE, **BUGS[bug])
    ports = [pure("haiku", packs, **ours), pure("nnx", right, **theirs)]
    proposal = inferred(ports[not packed_first], ports[packed_first], BATCH)
    assert not proposal.unpaired
    for pair in proposal.pairs:
        packed, whole, bounds = (pair.left, pair.right, pair.bounds[0])
        if not packed_first:
            packed, whole, bounds = whole, packed, pair.bounds[1]
        if packed.path.split("/")[-1].startswith("c"):
            part = PARTS[bounds[-1][0] // WIDTH] + ("_bias" if packed.path.endswith("bias") else "")
            assert whole.path.replace(".", "/") == f"{packed.path.split('/')[0]}/{part}"


def test_order_decides_nothing_that_gradients_decide():
    """The parts of a right port are in another order."""

    def other_order(p, x):
        k, v, q = in_parts(p, x)
        return [q, k, v]

    (packs, ours), (right, theirs) = two_layers(other_order, PACKED), two_layers(separate, THREE)
    proposal = inferred(pure("haiku", packs, **ours), pure("nnx", right, **theirs), BATCH)
    order = {0: "second", 1: "third", 2: "first"}
    found = {
        pair.right.path: order[pair.bounds[0][-1][0] // WIDTH] for pair in proposal.pairs if "/c" in pair.left.path
    }
    assert all(path.split("/")[-1].removesuffix("_bias") == part for path, part in found.items())


class Forgetful(nnx.Module):
    """It has a last normalisation, and does not call it."""

    def __init__(self, rngs):
        self.up = nnx.Linear(6, 5, rngs=rngs)
        self.norm = nnx.LayerNorm(5, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.up(x))


def normalised():
    @hk.transform
    def run(x):
        x = jax.nn.relu(hk.Linear(5, name="up")(x))
        return hk.LayerNorm(-1, True, True, eps=1e-6, name="norm")(x)

    return run


def test_a_layer_that_is_not_called_is_a_difference():
    run = compare(normalised, Forgetful, batch=BATCH, checks=("outputs",))
    assert run.verdict == "different"
    assert "norm.bias: haiku float32[5], nnx none: nnx has no counterpart of it" in run.headline.replace(
        "offset", "bias"
    )
