"""What is read from a program: the uses of leaves, their order, loops, parts, and roles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import asked, inferred, pure, renamed

from equiv.infer.dataflow.leaf_uses import LeafUses
from equiv.infer.dataflow.local_hash import node_roles
from equiv.infer.dataflow.port_graph import read_port
from equiv.infer.matching.match import match_leaves

X = {"x": "float32[3,5,8]"}
TWO = {"x": "float32[3,5,8]", "z": "float32[3,5,8]"}


def reading(function, batch=None, **shapes):
    return read_port(pure("haiku", function, **shapes), asked(batch or X)[0])


def by_position(left, right, batch=X, **shapes):
    """Pairs that position alone finds between two functions of the same leaves."""
    one = read_port(pure("haiku", left, **shapes), asked(batch)[0])
    port, names = renamed(pure("nnx", right, **shapes), 5)
    two = read_port(port, asked(batch)[0])
    old = {new: key.path for key, new in names.items()}
    pairs = match_leaves((one.use_graph, two.use_graph), ()).pairs
    return {one.key(a).path: old[two.key(b)] for a, b in pairs.items()}


def same(names):
    return {name: name for name in names}


def test_sums_are_one_however_they_are_grouped():
    """`(x W + z V) + b` and `x W + (z V + b)`, three times over: every leaf by position, as nothing else differs."""
    shapes = {f"{name}{at}": (8, 8) if name in "wv" else (8,) for at in range(3) for name in "wvb"}

    def first(p, x, z):
        for at in range(3):
            x = jnp.tanh((x @ p[f"w{at}"] + z @ p[f"v{at}"]) + p[f"b{at}"])
        return x

    def second(p, x, z):
        for at in range(3):
            x = jnp.tanh(x @ p[f"w{at}"] + (z @ p[f"v{at}"] + p[f"b{at}"]))
        return x

    assert by_position(first, second, TWO, **shapes) == same(shapes)


def test_products_are_one_however_they_are_grouped():
    """A batch norm with its scale folded into the root of the variance is a batch norm."""
    shapes = dict.fromkeys(("mean", "var", "scale", "bias"), (8,))

    def first(p, x):
        return (x - p["mean"]) * (jax.lax.rsqrt(p["var"] + 1e-5) * p["scale"]) + p["bias"]

    def second(p, x):
        return (x - p["mean"]) / jnp.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]

    assert by_position(first, second, **shapes) == same(shapes)


def test_what_a_loop_carries_distinguishes_leaves():
    """Two recurrent kernels whose products are summed: only the operand from the last iteration differs."""

    def run(p, x):
        def turn(carry, step):
            a, b = carry
            h = jnp.tanh(step @ p["into"] + a @ p["one"] + b @ p["two"])
            return (jnp.sin(h @ p["through"]), h), h

        start = jnp.zeros((3, 8)), jnp.zeros((3, 8))
        return jax.lax.scan(turn, start, x.transpose(1, 0, 2))[1]

    shapes = dict.fromkeys(("into", "one", "two", "through"), (8, 8))
    assert by_position(run, run, **shapes) == same(shapes)


def test_a_leaf_that_a_loop_hands_through_is_a_leaf():
    """A kernel among the carried values, never changed, is used as one from outside is."""

    def closed(p, x):
        return jax.lax.scan(lambda h, step: (jnp.tanh(h @ p["w"] + step), None), x[:, 0], x.transpose(1, 0, 2))[0]

    def carried(p, x):
        def turn(carry, step):
            h, kernel = carry
            return (jnp.tanh(h @ kernel + step), kernel), None

        return jax.lax.scan(turn, (x[:, 0], p["w"]), x.transpose(1, 0, 2))[0][0]

    one, two = (reading(function, w=(8, 8)).use_graph for function in (closed, carried))
    assert one.labels[0] == two.labels[0] == (64, "float", "contract")
    assert one.uses[0][0].access == two.uses[0][0].access


@pytest.mark.parametrize("layers", [4, 16])
def test_residual_networks_have_links_in_proportion_to_their_leaves(layers):
    """A leaf is linked to what comes right before it, not to all that a residual stream has collected."""

    def run(p, x):
        for at in range(layers):
            x = x + jnp.tanh(x @ p[f"w{at}"]) @ p[f"v{at}"] + p[f"b{at}"]
        return x

    shapes = {f"{name}{at}": (8,) if name == "b" else (8, 8) for at in range(layers) for name in "wvb"}
    use_graph = reading(run, **shapes).use_graph
    assert sum(map(len, use_graph.predecessors)) <= 2 * len(shapes)


def test_leaves_that_feed_nothing_are_dead():
    """A leaf whose use ends nowhere is no living block."""
    found = reading(lambda p, x: (x @ p["w"], x @ p["unused"])[0], w=(8, 8), unused=(8, 8))
    assert [key.path for key in found.dead] == ["unused"]


def test_programs_say_where_they_cut_leaves():
    """Packed gates, input rows above hidden rows: the columns and rows of the kernel, and the places of the bias."""

    def run(p, x):
        y = jnp.concatenate([x, jnp.sin(x[..., :3])], -1) @ p["w"] + p["b"]
        return jnp.split(y.reshape(15, 12), 3, axis=1)[1] + y.reshape(15, 12)[:, 4:8]

    found = reading(run, w=(11, 12), b=(12,))
    names = {place: key.path for place, key in found.keys.items()}
    assert {(names[leaf], axis): cuts for (leaf, axis), cuts in found.dataflow.wanted_cuts.items()} == {
        ("w", 0): (8,),
        ("w", 1): (4, 8),
        ("b", 0): (4, 8),
    }


def test_branches_of_a_choice_all_count():
    """A leaf of either branch of a cond is used, and comes before what follows."""

    def run(p, x):
        y = jax.lax.cond(x.sum() > 0, lambda: x @ p["yes"], lambda: jnp.tanh(x @ p["no"]))
        return y @ p["after"]

    found = reading(run, yes=(8, 8), no=(8, 8), after=(8, 8))
    use_graph = found.use_graph
    names = [found.key(node).path for node in range(use_graph.blocks)]
    (place,) = (place for place, node in enumerate(use_graph.owners) if node == names.index("after"))
    assert {names[use_graph.owners[other]] for other in use_graph.predecessors[place]} == {"yes", "no"}


def test_roles_are_equal_across_layers_and_differ_within():
    """Query, key and value have three roles, the same three in each layer: one tie decided decides them all."""

    def run(p, x):
        for at in range(2):
            q, k, v = (x @ p[f"w{at}"][part] + p[f"{name}{at}"] for part, name in enumerate("qkv"))
            x = jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k)) @ v @ p[f"o{at}"]
        return x

    shapes = {f"{name}{at}": {"w": (3, 8, 8), "o": (8, 8)}.get(name, (8,)) for at in range(2) for name in "qkvwo"}
    found = reading(run, **shapes)
    known = node_roles(found.dataflow)
    by_name = {found.key(node).path: known[node] for node in found.use_graph.live}
    assert [by_name[f"{name}0"] for name in "qkv"] == [by_name[f"{name}1"] for name in "qkv"]
    assert len({by_name[f"{name}0"] for name in "qkv"}) == 3


def rotate(x, split):
    """Rotary positions, with halves cut out by `split` or by their places."""
    half = x.shape[-1] // 2
    at = jnp.arange(x.shape[1], dtype=x.dtype)[None, :, None, None] * jnp.ones(half)
    if split:
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * jnp.cos(at) - b * jnp.sin(at), b * jnp.cos(at) + a * jnp.sin(at)], -1)
    turned = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
    return x * jnp.concatenate([jnp.cos(at)] * 2, -1) + turned * jnp.concatenate([jnp.sin(at)] * 2, -1)


def test_a_cut_that_only_one_program_makes_is_left_out():
    """Heads of their own are cut in halves for rotary positions, merged heads are not; key and value are packed."""

    def attend(p, q, k, v):
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(3, 5, 8) @ p["out"]

    def merged(p, x):
        q, k, v = ((x @ p[name]).reshape(3, 5, 2, 4) for name in ("query", "key", "value"))
        return attend(p, rotate(q, True), rotate(k, True), v)

    def packed(p, x):
        q = jnp.einsum("btd,dhk->bthk", x, p["query"])
        k, v = jnp.einsum("btd,cdhk->cbthk", x, p["both"])
        return attend(p, rotate(q, False), rotate(k, False), v)

    left = pure("haiku", merged, **dict.fromkeys(("query", "key", "value", "out"), (8, 8)))
    right = pure("nnx", packed, query=(8, 2, 4), both=(2, 8, 2, 4), out=(8, 8))
    proposal = inferred(left, right, X)
    assert {(pair.left.path, pair.right.path, pair.bounds[1][0]) for pair in proposal.pairs} == {
        ("query", "query", (0, 8)),
        ("key", "both", (0, 1)),
        ("value", "both", (1, 2)),
        ("out", "out", (0, 8)),
    }
    assert not proposal.unpaired


def test_uses_of_one_place_are_one():
    """A loop's body is walked twice; its uses are counted once."""
    uses = LeafUses()
    uses.path = ("scan", 1)
    assert uses.record(0, "add", None) == uses.record(0, "add", None) == 1
    assert np.shape(uses.nodes) == (1,)


def test_leaves_stacked_by_one_port_are_parts_of_the_others():
    """`jnp.stack` has a primitive of its own from jax 0.11 on; no name helps here."""

    def halves(y):
        return jnp.tanh(y[..., :8]) * y[..., 8:]

    def stacked(p, x):
        return halves(x @ jnp.stack([p["a"], p["b"]], 1).reshape(8, 16))

    def packed(p, x):
        return halves(x @ p["both"])

    proposal = inferred(pure("haiku", stacked, a=(8, 8), b=(8, 8)), pure("nnx", packed, both=(8, 16)), X)
    assert {(pair.left.path, pair.right.path, pair.bounds[1][1]) for pair in proposal.pairs} == {
        ("a", "both", (0, 8)),
        ("b", "both", (8, 16)),
    }
