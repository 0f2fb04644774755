"""Query, key and value that alternate head by head in one leaf: columns that recur, against leaves of their own."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from infer_ports import build, inferred, pure, tabled_outputs

from equiv.core.leaves import NativeKey
from equiv.infer.matching import splits
from equiv.infer.matching.by_name import name_words
from equiv.infer.table.rows import infer_rows

BATCH = {"x": "float32[2,5,6]"}
HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE


def attend(q, k, v, scale=SIZE**-0.5):
    """Attention of (batch, time, heads, size); fewer heads of key and value serve several of the query."""
    k, v = (jnp.repeat(y, q.shape[2] // y.shape[2], 2) for y in (k, v))
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) * scale)
    return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(*q.shape[:2], -1)


def turned(y):
    """Rotary positions."""
    at, half = jnp.arange(y.shape[1], dtype=y.dtype)[:, None, None] * jnp.array([1.0, 0.3]), y.shape[-1] // 2
    other = jnp.concatenate([-y[..., half:], y[..., :half]], -1)
    return y * jnp.tile(jnp.cos(at), 2) + other * jnp.tile(jnp.sin(at), 2)


def by_index(y):
    y = y.reshape(*y.shape[:2], HEADS, 3, SIZE)
    return [y[:, :, :, part] for part in range(3)]


def by_split(y):
    return jnp.split(y.reshape(*y.shape[:2], HEADS, 3 * SIZE), 3, -1)


def moved_first(y):
    return list(y.reshape(*y.shape[:2], HEADS, 3, SIZE).transpose(3, 0, 1, 2, 4))


def last(y):
    y = y.reshape(*y.shape[:2], HEADS, SIZE, 3)
    return [y[..., part] for part in range(3)]


def grouped(y):
    """Two heads of the query for each of key and value."""
    y = y.reshape(*y.shape[:2], HEADS, 4 * SIZE)
    q, k, v = jnp.split(y, [2 * SIZE, 3 * SIZE], -1)
    return [q.reshape(*y.shape[:2], 2 * HEADS, SIZE), k, v]


def packed(take, change=lambda q, k, v: attend(q, k, v)):
    """A port with one leaf, which `take` splits."""
    return lambda p, x: change(*take(x @ p["qkv"] + p["qkv_bias"])) @ p["out"]


def three_leaves(change=lambda q, k, v: attend(q, k, v)):
    """A port with three."""

    def run(p, x):
        every = (x @ p[name] + p[f"{name}_bias"] for name in ("query", "key", "value"))
        return change(*(y.reshape(*y.shape[:2], -1, SIZE) for y in every)) @ p["out"]

    return run


def shapes(query=WIDTH, **rest):
    found = {"query": (6, query), "query_bias": (query,), "out": (query, 3)}
    for name in ("key", "value"):
        found |= {name: (6, WIDTH), f"{name}_bias": (WIDTH,)}
    return found | rest


def one_leaf(query=WIDTH):
    return {"qkv": (6, query + 2 * WIDTH), "qkv_bias": (query + 2 * WIDTH,), "out": (query, 3)}


def rotary(q, k, v):
    return attend(turned(q), turned(k), v)


def side_by_side(y):
    """All heads of the query, then those of the key: no columns that recur."""
    return [part.reshape(*y.shape[:2], HEADS, SIZE) for part in jnp.split(y, 3, -1)]


def scopes(left, right):
    """Left scope to right scope, of a table that holds every leaf."""
    rows, problems = infer_rows(inferred(left, right, BATCH))
    assert problems == ()
    return {row.layer.scopes[left.name]: row.layer.scopes[right.name] for row in rows}


@pytest.mark.parametrize(
    ("take", "left", "right"),
    [
        (by_index, "haiku", "linen"),
        (by_split, "linen", "nnx"),
        (moved_first, "nnx", "haiku"),
        (last, "haiku", "nnx"),
    ],
)
def test_heads_that_alternate_fall_into_query_key_and_value(take, left, right):
    """However the program takes them from the product, with their biases."""
    ports = pure(left, three_leaves(), **shapes()), pure(right, packed(take), **one_leaf())
    length, period = (1, 3) if take is last else (4, 12)
    known = scopes(*ports)
    for place, name in enumerate(("query", "key", "value")):
        columns = f"[..., {place * length}:{(place + 1) * length} of {period}]"
        for leaf in ("", "_bias"):
            (found,) = (theirs for ours, theirs in known.items() if ours.endswith(f"{name}{leaf}"))
            assert found.endswith(f"qkv{leaf}{columns}")
    np.testing.assert_allclose(*tabled_outputs(*ports, BATCH), atol=1e-5)


def test_groups_of_the_query_recur_with_their_key_and_value():
    """Two heads of the query, one of the key and one of the value, again and again."""
    ports = pure("haiku", three_leaves(), **shapes(2 * WIDTH)), pure("nnx", packed(grouped), **one_leaf(2 * WIDTH))
    known = scopes(*ports)
    assert [known[name] for name in ("query", "key", "value")] == [
        f"qkv[..., {columns} of 16]" for columns in ("0:8", "8:12", "12:16")
    ]
    np.testing.assert_allclose(*tabled_outputs(*ports, BATCH), atol=1e-5)


@pytest.mark.parametrize(("take", "exhaustive"), [(by_index, True), (by_split, True), (by_split, False)])
def test_halves_of_heads_for_rotary_positions_stay_together(take, exhaustive, monkeypatch):
    """Both programs cut each head in halves, too: only the cuts that one leaf needs are made, in a large model, too."""
    if not exhaustive:
        monkeypatch.setattr(splits, "MAX_EXHAUSTIVE_GROUPS", 0)
    ports = pure("haiku", three_leaves(rotary), **shapes()), pure("nnx", packed(take, rotary), **one_leaf())
    assert scopes(*ports)["key"] == "qkv[..., 4:8 of 12]"
    np.testing.assert_allclose(*tabled_outputs(*ports, BATCH), atol=1e-5)


def test_two_orders_of_the_parts_of_a_leaf():
    """Both ports have one leaf, in two orders of its columns: a layout says which."""
    ports = pure("haiku", packed(side_by_side), **one_leaf()), pure("nnx", packed(by_index), **one_leaf())
    assert scopes(*ports) == {name: name for name in ("qkv", "qkv_bias", "out")}
    np.testing.assert_allclose(*tabled_outputs(*ports, BATCH), atol=1e-5)


def test_a_stack_of_packed_layers_has_rows_for_each_part():
    """A loop over stacked layers in one port, layers of their own in the other one."""

    def loop(p, x):
        stacked = {name: p[name] for name in one_leaf()}
        return jax.lax.scan(lambda x, own: (x + packed(by_index)(own, x), None), x, stacked)[0]

    def unrolled(p, x):
        for layer in range(2):
            x = x + three_leaves()({name: p[f"{layer}/{name}"] for name in shapes()}, x)
        return x

    own = {f"{layer}/{name}": shape for layer in range(2) for name, shape in shapes(out=(WIDTH, 6)).items()}
    stack = {name: (2, *shape) for name, shape in (one_leaf() | {"out": (WIDTH, 6)}).items()}
    ports = pure("haiku", unrolled, **own), pure("nnx", loop, **stack)
    assert scopes(*ports)["1/key"] == "qkv[1][..., 4:8 of 12]"
    np.testing.assert_allclose(*tabled_outputs(*ports, BATCH), rtol=1e-4, atol=1e-4)


def test_heads_with_channels_first_are_parts_of_a_convolution():
    """As older diffusion models keep them: one convolution, whose channels join the batch head by head."""

    def convolved(p, x):
        numbers = ("NCH", "HIO", "NCH")
        y = jax.lax.conv_general_dilated(x.transpose(0, 2, 1), p["qkv"], (1,), "VALID", dimension_numbers=numbers)
        y = (y + p["qkv_bias"][:, None]).reshape(2 * HEADS, 3 * SIZE, 5)
        q, k, v = jnp.split(y, 3, 1)
        weights = jax.nn.softmax(jnp.einsum("bct,bcs->bts", q, k) * SIZE**-0.5)
        return jnp.einsum("bts,bcs->bct", weights, v).reshape(2, WIDTH, 5).transpose(0, 2, 1) @ p["out"]

    port = pure("nnx", convolved, **{**one_leaf(), "qkv": (1, 6, 3 * WIDTH)})
    left = pure("haiku", three_leaves(), **shapes())
    assert scopes(left, port)["value"] == "qkv[..., 8:12 of 12]"
    np.testing.assert_allclose(*tabled_outputs(left, port, BATCH), atol=1e-5)


FAULTS = {
    "heads of the key reversed": lambda q, k, v: attend(q, k[:, :, ::-1], v),
    "heads of the value in another order": lambda q, k, v: attend(q, k, jnp.roll(v, 1, 2)),
    "another scale": lambda q, k, v: attend(q, k, v, 1.0),
    "no scale of the query": lambda q, k, v: attend(q * 2, k, v),
    "rotary positions of the value": lambda q, k, v: attend(turned(q), k, turned(v)),
    "a head is left out": lambda q, k, v: attend(q, k, jnp.asarray(v).at[:, :, 0].set(0.0)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_packed_port_is_not_mapped_away(fault):
    """A table is found, as names say which part is which, and under it the outputs differ; or there is none."""
    right = rotary if fault is FAULTS["rotary positions of the value"] else attend
    left, port = pure("haiku", three_leaves(right), **shapes()), pure("nnx", packed(by_index, fault), **one_leaf())
    proposal = inferred(left, port, BATCH)
    rows, problems = infer_rows(proposal)
    assert rows
    if not (problems or proposal.unpaired):
        one, two = tabled_outputs(left, port, BATCH)
        assert np.abs(one - two).max() > 0.1


def test_key_and_value_exchanged_in_a_packed_leaf_are_reported():
    """The function is that of another order of its columns, which its name contradicts."""
    left = pure("haiku", three_leaves(), **shapes())
    proposal = inferred(left, pure("nnx", packed(by_index, lambda q, k, v: attend(q, v, k)), **one_leaf()), BATCH)
    crossed = {frozenset(proposal.pairs[at].left.path for at in pair) for pair in proposal.name_conflicts}
    assert crossed == {frozenset(("key", "value")), frozenset(("key_bias", "value_bias"))}


def two_layers(packs, final):
    """Two layers of attention, and a head that may lack its activation."""

    def run(p, x):
        for layer in range(2):
            own = {name.split("/")[1]: leaf for name, leaf in p.items() if name.startswith(f"{layer}/")}
            x = x + (packed(by_index) if packs else three_leaves())(own, x)
        return final(x @ p["head"]) @ p["score"]

    leaves = (one_leaf() if packs else shapes()) | {"out": (WIDTH, 6)}
    every = {f"{layer}/{name}": shape for layer in range(2) for name, shape in leaves.items()}
    return run, {**every, "head": (6, 6), "score": (6, 1)}


def test_a_bug_after_a_packed_leaf_leaves_its_map():
    """No gradient is equal where an activation is missing: the name of the leaf says the order of its parts."""
    (left, ours), (right, theirs) = two_layers(False, jax.nn.gelu), two_layers(True, lambda x: x)
    known = scopes(pure("haiku", left, **ours), pure("nnx", right, **theirs))
    for layer in range(2):
        for place, name in enumerate(("query", "key", "value")):
            columns = f"[..., {4 * place}:{4 * place + 4} of 12]"
            assert known[f"{layer}/{name}"] == f"{layer}/qkv{columns}"
            assert known[f"{layer}/{name}_bias"] == f"{layer}/qkv_bias{columns}"


def test_parts_of_heads_on_rows_have_no_row():
    """A kernel that is stored out first: nothing in a table says so, and the pair is named."""
    swapped = {**one_leaf(), "qkv": (24, 6)}
    port = pure("nnx", lambda p, x: packed(by_index)({**p, "qkv": p["qkv"].T}, x), **swapped)
    _, problems = infer_rows(inferred(pure("haiku", three_leaves(), **shapes()), port, BATCH))
    assert len(problems) == 3
    assert all("no row of a layer table says that a leaf is such a part" in problem for problem in problems)


class Packed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(attend(*by_split(nn.Dense(3 * WIDTH, name="query_key_value")(x))))


class ThreeLeaves(nnx.Module):
    def __init__(self, rngs):
        self.q, self.k, self.v = (nnx.Linear(6, WIDTH, rngs=rngs) for _ in range(3))
        self.out = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(attend(*(layer(x).reshape(*x.shape[:2], HEADS, SIZE) for layer in (self.q, self.k, self.v))))


def haiku_layers():
    """Packed as the one in Linen, in Haiku."""

    def forward(x):
        return hk.Linear(3, name="out")(attend(*by_index(hk.Linear(3 * WIDTH, name="qkv")(x))))

    return hk.without_apply_rng(hk.transform(forward))


def test_layers_of_libraries_are_rows_of_linear_layers():
    """Kernel and bias of a part are one row; two packed layers of the same order are one layer."""
    linen, nnx_port, haiku = (
        build("linen", Packed, BATCH),
        build("nnx", ThreeLeaves, BATCH),
        build("haiku", haiku_layers, BATCH),
    )
    assert scopes(nnx_port, linen) == {
        "q": "query_key_value[..., 0:4 of 12]",
        "k": "query_key_value[..., 4:8 of 12]",
        "v": "query_key_value[..., 8:12 of 12]",
        "out": "out",
    }
    assert scopes(haiku, nnx_port)["qkv[..., 4:8 of 12]"] == "k"
    assert scopes(linen, haiku) == {"query_key_value": "qkv", "out": "out"}


@pytest.mark.parametrize(
    ("path", "part", "words"),
    [
        ("block/qkv/kernel", (1, 3), {"block", "key", "kernel"}),
        ("attention/query_key_value/bias", (2, 3), {"attention", "value", "bias"}),
        ("mlp/gate_up/kernel", (1, 2), {"mlp", "up", "kernel"}),
        ("to_kv/w", (0, 2), {"to", "key", "kernel"}),
        ("c_attn/kernel", (1, 3), {"c", "attn", "kernel"}),
        ("qkv/kernel", (1, 2), {"query", "key", "value", "kernel"}),
        ("qkv/kernel", (0, 1), {"qkv", "kernel"}),
    ],
)
def test_the_name_of_a_packed_leaf_names_its_parts(path, part, words):
    """Only where it has as many words as the leaf has parts."""
    found = name_words(NativeKey("params", path), part)
    assert {word.removesuffix("#0") for word in found} == words
