"""One computation written in two ways: a loop or a scan, a lookup before or after a split, einsum or broadcasting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import inferred, pure, tabled_outputs

import equiv
from equiv.core.leaves import NativeKey
from equiv.errors import PortError
from equiv.infer.draft_case import check_without_run
from equiv.infer.matching.proposal import LeafPair, Proposal, UnpairedLeaf
from equiv.infer.session import InferredLayers

SEQUENCE = {"x": "float32[3,5,4]"}
GRAPH = {"x": "float32[5,4]", "senders": "int32[7]:5"}


def cell(h, x, i, r, o):
    return jnp.tanh(x @ i + jax.nn.sigmoid(h @ r) * (h @ o))


def scanned(p, x):
    def step(h, x):
        h = cell(h, x, p["in"], p["reset"], p["hidden"])
        return h, h

    return jax.lax.scan(step, jnp.zeros((x.shape[0], 6)), x.swapaxes(0, 1))[1]


def looped(begin, fault=False):
    def run(p, x):
        h, found = begin((x.shape[0], 6)), []
        for at in range(x.shape[1]):
            r, o = jnp.split(p["packed"], 2, 1)
            h = cell(h, x[:, at], p["i"], *((o, r) if fault and at == 3 else (r, o)))
            found.append(h)
        return jnp.stack(found)

    return run


@pytest.mark.parametrize("begin", [jnp.zeros, lambda shape: np.zeros(shape, "float32")], ids=["made", "constant"])
@pytest.mark.parametrize("fault", [False, True])
def test_a_loop_of_python_is_a_scan(begin, fault):
    """The state is zeros before the first step: the kernels that it meets are contracted there, too."""
    square = {"reset": (6, 6), "hidden": (6, 6)}
    left = pure("haiku", scanned, **{"in": (4, 6)}, **square)
    right = pure("nnx", looped(begin, fault), i=(4, 6), packed=(6, 12))
    one, two = tabled_outputs(left, right, SEQUENCE)
    assert np.allclose(one, two, atol=1e-5) is not fault


@pytest.mark.parametrize("fault", [False, True])
def test_columns_are_split_after_a_lookup(fault):
    """Messages of a graph: three layers of the senders, or one whose columns are split after the lookup."""

    def separate(p, x, senders):
        return x[senders][:, :3] * (jnp.tanh(x @ p["a"])[senders] - (x @ p["b"])[senders]) + (x @ p["c"])[senders]

    def packed(p, x, senders):
        a, b, c = jnp.split((x @ p["w"])[senders], 3, -1)
        return x[senders][:, :3] * (jnp.tanh(a) - (c if fault else b)) + (a if fault else c)

    left, right = pure("haiku", separate, **dict.fromkeys("abc", (4, 3))), pure("nnx", packed, w=(4, 9))
    if fault:
        assert inferred(left, right, GRAPH).unpaired
        return
    np.testing.assert_allclose(*tabled_outputs(left, right, GRAPH), atol=1e-5)


def test_a_table_in_columns_is_looked_up():
    """Two embeddings, or one table with the two side by side."""

    def separate(p, tokens):
        return jnp.tanh(p["word"][tokens]) * p["gate"][tokens]

    def packed(p, tokens):
        a, b = jnp.split(p["table"][tokens], [4], -1)
        return jnp.tanh(a) * b

    left, right = pure("haiku", separate, word=(9, 4), gate=(9, 4)), pure("nnx", packed, table=(9, 8))
    np.testing.assert_allclose(*tabled_outputs(left, right, {"tokens": "int32[6]:9"}), atol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_rows_of_a_kernel_may_be_cut_coarsely(first):
    """A skip connection from `concatenate([x, sin(x), cos(x)])`: a kernel for all of it, or rows of a larger one."""

    def encode(x):
        return jnp.concatenate([x, jnp.sin(x), jnp.cos(x)], -1)

    def joined(p, x):
        parts = [jnp.tanh(encode(x) @ p["first"]), encode(x)]
        return jnp.tanh(jnp.concatenate(parts if first else parts[::-1], -1) @ p["second"]) @ p["out"]

    def summed(p, x):
        e = encode(x)
        return jnp.tanh(jnp.tanh(e @ p["one"]) @ p["two"] + e @ p["skip"]) @ p["head"]

    left = pure("haiku", joined, first=(12, 5), second=(17, 5), out=(5, 2))
    right = pure("nnx", summed, one=(12, 5), two=(5, 5), skip=(12, 5), head=(5, 2))
    np.testing.assert_allclose(*tabled_outputs(left, right, {"x": "float32[6,4]"}), atol=1e-5)


@pytest.mark.parametrize("fault", [False, True])
def test_einsum_without_a_sum_is_a_product(fault):
    """The decay of a state space, `exp(dt a)` for every feature and state, each port in its own order of axes."""

    def einsum(p, x):
        return jnp.einsum("tdn,dn->td", jnp.exp(jnp.einsum("td,dn->tdn", x, -jnp.exp(p["a"]))), p["b"]) * p["c"]

    def broadcast(p, x):
        decay = jnp.exp(x[:, None, :] * -jnp.exp(p["log"]))
        return (decay * p["into"]).sum(2 if fault else 1) * p["scale"]

    left = pure("haiku", einsum, a=(4, 4), b=(4, 4), c=(4,))
    right = pure("nnx", broadcast, log=(4, 4), into=(4, 4), scale=(4,))
    one, two = tabled_outputs(left, right, {"x": "float32[6,4]"})
    assert np.allclose(one, two, atol=1e-5) is not fault


@pytest.mark.parametrize("fault", [False, True])
def test_a_bias_at_the_end_of_a_stack(fault):
    """Two critics, or a stack of two under `vmap` whose last bias meets no kernel any more."""

    def critic(x, w, o, b):
        return jnp.tanh(x @ w) @ o + b

    def two(p, x):
        return jnp.minimum(*(critic(x, p[f"w{at}"], p[f"o{at}"], p[f"b{at}"]) for at in range(2)))

    def stacked(p, x):
        found = jax.vmap(critic, (None, 0, 0, 0))(x, p["w"], p["o"], p["b"])
        return found.max(0) if fault else found.min(0)

    shapes = {"w": (4, 6), "o": (6, 1), "b": (1,)}
    left = pure("haiku", two, **{f"{name}{at}": shape for at in range(2) for name, shape in shapes.items()})
    right = pure("nnx", stacked, **{name: (2, *shape) for name, shape in shapes.items()})
    one, two_ = tabled_outputs(left, right, {"x": "float32[5,4]"})
    assert np.allclose(one, two_, atol=1e-5) is not fault


@pytest.mark.parametrize(("rows", "grade"), [(12, "unidentifiable"), (13, "refuted")])
def test_a_leaf_mapped_in_part_has_room(rows, grade):
    """Its 12 other rows may be a leaf that the other port has alone, and no leaf of 13 rows."""
    left = pure("haiku", lambda p, x: x, second=(17, 5))
    right = pure("nnx", lambda p, x: x, two=(5, 5), skip=(rows, 5))
    second, two, skip = (NativeKey("params", name) for name in ("second", "two", "skip"))
    shapes = (17, 5), (5, 5)
    pair = LeafPair(second, two, shapes, (((0, 5), (0, 5)), ((0, 5), (0, 5))), None, 0.0, "position")
    alone = (UnpairedLeaf(1, skip, "nothing decides it", dead=False),)
    found = InferredLayers(
        Proposal((left, right), (pair,), alone, (), ()), (), ("rows missing",), alone, False, None, 0.0
    )
    assert check_without_run(found)[0].grade == grade


def test_a_label_that_a_model_takes_is_named():
    """A Gaussian process takes `y`: the call, with every input in its place."""
    import haiku as hk

    def build():
        return hk.without_apply_rng(hk.transform(lambda x, y, z: hk.Linear(2)(x + y + z)))

    batch = dict.fromkeys("xyz", "float32[3,4]")
    with pytest.raises(PortError, match=r"y is taken for a label and not passed; .* '__call__\(x, y, z\)'"):
        equiv.infer_layers(build, build, batch=batch)
