"""One kernel of all groups of a convolution against one kernel for each group: its columns are the others' leaves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from infer_ports import build, found, inferred, pure

import equiv

IMAGES = {"x": "float32[2,5,5,4]"}


class Grouped(nn.Module):
    """A convolution in groups, one of all features between them, a norm of all."""

    groups: int = 2
    per_group: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.groups * self.per_group, (3, 3), feature_group_count=self.groups, name="grouped")(x)
        x = nn.LayerNorm(name="norm")(nn.relu(x))
        return nn.Conv(2, (1, 1), name="mixed")(x)


class Apart(nnx.Module):
    """A convolution for each group, each on its own features."""

    def __init__(self, rngs, groups=2, per_group=3, order=None):
        self.order = order or range(groups)
        width = 4 // groups
        self.branches = nnx.List([nnx.Conv(width, per_group, (3, 3), rngs=rngs) for _ in range(groups)])
        self.norm = nnx.LayerNorm(groups * per_group, epsilon=1e-6, rngs=rngs)
        self.mixed = nnx.Conv(groups * per_group, 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        parts = jnp.split(x, len(self.branches), axis=-1)
        parts = [branch(parts[at]) for at, branch in zip(self.order, self.branches, strict=True)]
        return self.mixed(self.norm(nnx.relu(jnp.concatenate(parts, axis=-1))))


@pytest.mark.parametrize(("groups", "per_group"), [(2, 3), (4, 1), (4, 2)])
def test_a_kernel_for_each_group_is_a_slice_of_one(groups, per_group):
    """Two groups, a kernel for each channel (depthwise), and a multiple of it: kernels and biases."""
    left = build("linen", lambda: Grouped(groups, per_group), IMAGES)
    right = build("nnx", lambda rngs: Apart(rngs, groups, per_group), IMAGES)
    whole = ((0, 3), (0, 3), (0, 4 // groups))
    pairs = found(inferred(left, right, IMAGES))
    for group in range(groups):
        columns = (group * per_group, (group + 1) * per_group)
        assert pairs["grouped/kernel", (*whole, columns)][0] == f"branches.{group}.kernel"
        assert pairs["grouped/bias", (columns,)][0] == f"branches.{group}.bias"


def test_groups_of_both_ports_stay_one_leaf():
    """There is nothing to cut where both have one kernel of all groups."""

    class Both(nnx.Module):
        def __init__(self, rngs):
            self.grouped = nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=rngs)
            self.norm, self.mixed = nnx.LayerNorm(6, rngs=rngs), nnx.Conv(6, 2, (1, 1), rngs=rngs)

        def __call__(self, x):
            return self.mixed(self.norm(nnx.relu(self.grouped(x))))

    proposal = inferred(build("linen", Grouped, IMAGES), build("nnx", Both, IMAGES), IMAGES)
    assert {pair.bounds[0] for pair in proposal.pairs if pair.left.path == "grouped/kernel"} == {
        ((0, 3), (0, 3), (0, 2), (0, 6))
    }


def test_groups_on_channels_first_of_plain_jax_are_found():
    """`lax.conv_general_dilated` with kernels (out, in, width), in two groups against two calls."""

    def convolve(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", feature_group_count=groups)

    def together(p, x):
        return jnp.tanh(convolve(x, p["m/w"], 2))

    def apart(p, x):
        return jnp.tanh(jnp.concatenate([convolve(x[:, :3], p["m/a"]), convolve(x[:, 3:], p["m/b"])], axis=1))

    batch = {"x": "float32[2,6,7]"}
    left = pure("haiku", together, **{"m/w": (4, 3, 2)})
    right = pure("haiku", apart, **{"m/a": (2, 3, 2), "m/b": (2, 3, 2)})
    pairs = found(inferred(left, right, batch))
    assert pairs["m/w", ((0, 2), (0, 3), (0, 2))][0] == "m/a"
    assert pairs["m/w", ((2, 4), (0, 3), (0, 2))][0] == "m/b"


@pytest.mark.quick(1)
@pytest.mark.parametrize(("order", "verdict"), [((1, 0), "different"), (None, "same")])
def test_groups_on_the_wrong_features_are_different(order, verdict, monkeypatch):
    """The map is found either way; the ports are the same only where each kernel meets its own features."""
    monkeypatch.setenv("EQUIV_COMPILED", "0")
    (case,) = equiv.compare(Grouped, lambda rngs: Apart(rngs, order=order), batch=IMAGES, checks=("outputs",)).cases
    assert case.verdicts == {"nnx": verdict}
