"""What inference makes of other code, other layouts, symmetries and bugs: small ports of plain functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infer_ports import found, inferred, paths, pure, renamed, shuffled_back

from equiv.infer.describe import describe_layout
from equiv.infer.table.rows import infer_rows

X = {"x": "float32[3,5,8]"}


def attend(q, k, v, heads=2):
    batch, length, _ = q.shape
    q, k, v = (value.reshape(batch, length, heads, -1) for value in (q, k, v))
    weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1]))
    return jnp.einsum("bhts,bshd->bthd", weights, v).reshape(batch, length, -1)


def attention(p, x):
    return attend(x @ p["query"], x @ p["key"], x @ p["value"]) @ p["out"]


FOUR = dict.fromkeys(("query", "key", "value", "out"), (8, 8))


def norm(x, scale, bias, epsilon=1e-5):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + epsilon) * scale + bias


def other_norm(x, scale, bias, epsilon=1e-5):
    mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
    return (x - mean) * (jax.lax.rsqrt(square - mean * mean + epsilon) * scale) + bias


def network(normed, missing=None, epsilon=1e-5, act=jax.nn.gelu):
    """Three residual blocks; the middle one may lack a bias, or have another epsilon or activation."""

    def run(p, x):
        for layer in range(3):
            y = x @ p[f"wide{layer}"]
            y = y if missing == layer else y + p[f"shift{layer}"]
            y = normed(y, p[f"scale{layer}"], p[f"offset{layer}"], epsilon if layer == 1 else 1e-5)
            x = x + (act if layer == 1 else jax.nn.gelu)(y) @ p[f"narrow{layer}"] + p[f"bias{layer}"]
        return x @ p["head"]

    shapes = {"head": (8, 3)}
    for layer in range(3):
        shapes |= {f"{name}{layer}": (8,) for name in ("scale", "offset", "bias", "shift")}
        shapes |= {f"{name}{layer}": (8, 8) for name in ("wide", "narrow")}
    return run, {name: shape for name, shape in shapes.items() if name != f"shift{missing}"}


def same(names):
    return {name: name for name in names}


def nameless(left, right, batch=X, seed=0):
    (one, ours), (two, theirs) = renamed(left, seed), renamed(right, seed + 1)
    proposal = inferred(one, two, batch)
    return proposal, shuffled_back(proposal, ours, theirs)


def test_a_norm_written_otherwise_is_the_same_norm():
    """Two ways to write a layer norm have one use_graph, without names."""
    run, shapes = network(norm)
    _, pairs = nameless(pure("haiku", run, **shapes), pure("nnx", network(other_norm)[0], **shapes))
    assert pairs == same(shapes)


def test_a_wrong_epsilon_and_activation_do_not_disturb_the_map():
    """A port with bugs is still mapped, so that it can be compared."""
    run, shapes = network(norm)
    buggy, _ = network(other_norm, epsilon=1e-2, act=jax.nn.relu)
    proposal, pairs = nameless(pure("haiku", run, **shapes), pure("nnx", buggy, **shapes))
    assert pairs == same(shapes)
    assert {pair.evidence for pair in proposal.pairs} == {"position"}


def test_a_missing_bias_is_named_and_the_rest_is_mapped():
    """The leaf that one port lacks has no pair; every other leaf has its own."""
    run, shapes = network(norm)
    other, fewer = network(norm, missing=1)
    proposal, pairs = nameless(pure("haiku", run, **shapes), pure("nnx", other, **fewer))
    assert pairs == same(fewer)
    assert {pair.evidence for pair in proposal.pairs} == {"position"}
    assert [left.reason for left in proposal.unpaired] == ["nnx has no leaf of 8 elements left"]


def test_transposed_storage_is_a_transpose():
    """A port that keeps its kernels the other way round gets a layout, though every kernel is square."""
    turned = pure("nnx", lambda p, x: attention({name: leaf.T for name, leaf in p.items()}, x), **FOUR)
    proposal, pairs = nameless(pure("haiku", attention, **FOUR), turned)
    assert pairs == same(FOUR)
    assert {describe_layout(pair, proposal) for pair in proposal.pairs} == {"haiku: axes -2 and -1 swapped"}


def fused(p, x):
    return attend(*jnp.split(x @ p["qkv"], 3, axis=-1)) @ p["out"]


def fused_by_index(p, x):
    y = (x @ p["qkv"]).reshape(*x.shape[:2], 3, 8)
    return attend(y[:, :, 0], y[:, :, 1], y[:, :, 2]) @ p["out"]


@pytest.mark.parametrize("packed", [fused, fused_by_index])
def test_a_fused_projection_falls_into_query_key_and_value(packed):
    """One kernel of three in a row is split as its program does it."""
    right = pure("nnx", packed, qkv=(8, 24), out=(8, 8))
    pairs = found(inferred(pure("haiku", attention, **FOUR), right, X))
    columns = {left: part[1] for (left, _), (right, part) in pairs.items() if right == "qkv"}
    assert columns == {"query": (0, 8), "key": (8, 16), "value": (16, 24)}


@pytest.mark.parametrize("names", [("sender", "receiver"), ("receiver", "sender")])
def test_a_layer_may_come_before_a_lookup_or_after(names):
    """Rows of one kernel, for what is looked up side by side, and two kernels before the lookups: gradients decide."""

    def after(p, x, i, j):
        wide = x @ p["wide"]
        return jnp.tanh(jnp.concatenate([wide[:, i], wide[:, j]], -1) @ p["score"])

    def before(p, x, i, j):
        wide = x @ p["wide"]
        return jnp.tanh((wide @ p[names[1]])[:, j] + (wide @ p[names[0]])[:, i])

    left = pure("haiku", after, wide=(8, 8), score=(16, 2))
    right = pure("nnx", before, wide=(8, 8), sender=(8, 2), receiver=(8, 2))
    proposal = inferred(left, right, {**X, "i": "int32[6]:5", "j": "int32[6]:5"})
    assert {pair.right.path: pair.bounds[0][0] for pair in proposal.pairs if pair.left.path == "score"} == {
        names[0]: (0, 8),
        names[1]: (8, 16),
    }


def test_rows_at_constant_places_are_used_like_a_slice():
    """A table of positions, looked up with `arange` or sliced, has one place, so that gradients decide the rest."""
    shapes = {**FOUR, "table": (7, 8)}
    looked_up = pure("haiku", lambda p, x: attention(p, x + p["table"][jnp.arange(5)]), **shapes)
    proposal, pairs = nameless(looked_up, pure("nnx", lambda p, x: attention(p, x + p["table"][:5]), **shapes))
    assert pairs == same(shapes)
    assert {pair.evidence for pair in proposal.pairs} == {"position", "gradient"}


def test_a_fused_projection_has_a_row_for_each_part():
    """Query, key and value side by side in one kernel are columns of it."""
    proposal = inferred(pure("haiku", attention, **FOUR), pure("nnx", fused, qkv=(8, 24), out=(8, 8)), X)
    found, problems = infer_rows(proposal)
    assert problems == ()
    scopes = {row.layer.path: (row.layer.scopes["haiku"], row.layer.scopes["nnx"]) for row in found}
    assert scopes == {
        "query": ("query", "qkv[..., 0:8]"),
        "key": ("key", "qkv[..., 8:16]"),
        "value": ("value", "qkv[..., 16:24]"),
        "out": ("out", "out"),
    }


def test_a_map_against_the_names_is_reported():
    """Query and key exchanged in one port: the function decides, and the names are said to contradict."""
    crossed = pure("nnx", lambda p, x: attend(x @ p["key"], x @ p["query"], x @ p["value"]) @ p["out"], **FOUR)
    proposal = inferred(pure("haiku", attention, **FOUR), crossed, X)
    assert paths(proposal) == {"query": "key", "key": "query", "value": "value", "out": "out"}
    (pair,) = proposal.name_conflicts
    assert {proposal.pairs[place].left.path for place in pair} == {"query", "key"}


def in_order(*places):
    """Three layers, one after another, with the parameters at these places."""

    def call(p, x):
        for place in places:
            x = jnp.tanh(x @ p[f"layer_{place}"])
        return x

    return call


@pytest.mark.parametrize(("order", "turned"), [((1, 2, 0), True), ((0, 1, 2), False), ((1, 2, 3), False)])
def test_layers_turned_round_contradict_the_names(order, turned):
    """Layers that one port counts from 1 do not: their names are not the same on both sides."""
    one, other = ({f"layer_{at}": (8, 8) for at in sorted(places)} for places in ((0, 1, 2), order))
    proposal = inferred(pure("haiku", in_order(0, 1, 2), **one), pure("nnx", in_order(*order), **other), X)
    assert list(paths(proposal).values()) == [f"layer_{at}" for at in order]
    assert [len(numbers) for numbers in proposal.name_conflicts] == ([3] if turned else [])


def branches(p, x):
    return sum(jnp.tanh(x @ p[f"into{at}"] + p[f"bias{at}"]) @ p[f"out{at}"] for at in range(3))


BRANCHES = {
    f"{name}{at}": shape for name, shape in (("into", (8, 6)), ("bias", (6,)), ("out", (6, 8))) for at in range(3)
}


def test_interchangeable_leaves_are_listed_and_mapped_consistently():
    """Three equal branches that are summed: any order will do, but a branch stays together."""
    proposal, pairs = nameless(pure("haiku", branches, **BRANCHES), pure("nnx", branches, **BRANCHES))
    order = [pairs[f"into{at}"][-1] for at in range(3)]
    assert [pairs[f"bias{at}"][-1] for at in range(3)] == order
    assert [pairs[f"out{at}"][-1] for at in range(3)] == order
    groups = {pair.interchange_group for pair in proposal.pairs if pair.interchange_group}
    assert len(groups) == 1
    assert sum(pair.interchange_group in groups for pair in proposal.pairs) == 3


def test_names_choose_among_interchangeable_leaves():
    """Where any order will do, the one that the names have is taken."""
    turned = {name[:-1] + str((int(name[-1]) + 1) % 3): shape for name, shape in BRANCHES.items()}
    proposal = inferred(pure("haiku", branches, **BRANCHES), pure("nnx", branches, **turned), X)
    assert paths(proposal) == same(BRANCHES)


TOKENS = {"x": "int32[2,5]:11"}


def tied(p, x):
    return jnp.tanh(p["embed"][x] @ p["dense"]) @ p["embed"].T


def test_a_tied_leaf_is_one_leaf():
    """Embedding and output layer share a leaf in both ports, one looks it up and one multiplies by ones and zeros."""

    def other(p, x):
        return jnp.einsum("btd,vd->btv", jnp.tanh(jax.nn.one_hot(x, 11) @ p["embed"] @ p["dense"]), p["embed"])

    shapes = {"embed": (11, 8), "dense": (8, 8)}
    _, pairs = nameless(pure("haiku", tied, **shapes), pure("nnx", other, **shapes), TOKENS)
    assert pairs == same(shapes)


def test_a_leaf_tied_in_one_port_only_is_reported():
    """Two leaves cannot both be the one: the reason says where it is used twice."""

    def untied(p, x):
        return jnp.tanh(p["embed"][x] @ p["dense"]) @ p["head"].T

    shapes = {"embed": (11, 8), "dense": (8, 8)}
    proposal = inferred(pure("haiku", tied, **shapes), pure("nnx", untied, **shapes, head=(11, 8)), TOKENS)
    (left,) = proposal.unpaired
    assert left.key.path == "head"
    assert left.reason == (
        "haiku has no leaf of 88 elements left; it uses embed (params) several times, perhaps as a shared parameter"
    )


def test_a_number_in_the_code_is_a_shift_if_whole():
    """1 + scale and scale - 1 are other layouts, 1 - scale is not; another epsilon is another function."""
    left = pure("haiku", lambda p, x: norm(x, p["scale"], p["bias"]), scale=(8,), bias=(8,))
    shifts = {}
    for name, change in {"plus": lambda w: 1 + w, "minus": lambda w: w - 1, "from": lambda w: 1 - w}.items():

        def other(p, x, change=change):
            return other_norm(x, change(p["scale"]), p["bias"], 1e-2)

        proposal = inferred(left, pure("nnx", other, scale=(8,), bias=(8,)), X)
        shifts[name] = {pair.left.path: pair.shift for pair in proposal.pairs}
    assert shifts == {
        "plus": {"scale": -1.0, "bias": 0.0},
        "minus": {"scale": 1.0, "bias": 0.0},
        "from": {"scale": 0.0, "bias": 0.0},
    }


def test_a_reversed_scan_takes_its_layers_from_the_end():
    """The first iteration reads the last item: against a scan from the start the stack is flipped."""

    def scanned(reverse):
        return lambda p, x: jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p["w"], reverse=reverse)[0]

    left, right = pure("haiku", scanned(False), w=(3, 8, 8)), pure("nnx", scanned(True), w=(3, 8, 8))
    proposal = inferred(left, right, X)
    assert [describe_layout(pair, proposal) for pair in proposal.pairs] == ["haiku: axes -3 reversed"]
    assert [describe_layout(pair, proposal) for pair in inferred(right, right, X).pairs] == [""]


def test_another_epsilon_under_a_variance_is_no_shift():
    """What is added to a running variance is a fraction: the leaf is the same, the function is another."""

    def scaled(epsilon):
        return lambda p, x: x * jax.lax.rsqrt(p["var"] + epsilon)

    proposal = inferred(pure("haiku", scaled(1e-5), var=(8,)), pure("nnx", scaled(1e-3), var=(8,)), X)
    assert [pair.shift for pair in proposal.pairs] == [0.0]


def test_axes_arranged_otherwise_are_no_transpose():
    """A port that adds its positions with time last holds them as the other one does."""
    left = pure("haiku", lambda p, x: x + p["positions"], positions=(5, 8))
    right = pure("nnx", lambda p, x: (x.transpose(0, 2, 1) + p["positions"].T).transpose(0, 2, 1), positions=(5, 8))
    proposal = inferred(left, right, X)
    assert [describe_layout(pair, proposal) for pair in proposal.pairs] == [""]
    assert infer_rows(proposal)[1] == ()


def test_channels_first_kernels_have_their_axes_moved():
    """Images with channels first, joined along them: kernels are (out, in, *window), not (*window, in, out)."""

    def conv(x, kernel, *axes):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=(axes[0], axes[1], axes[0]))

    def last(p, x):
        axes = "NHWC", "HWIO"
        a = jax.nn.relu(conv(x, p["a"], *axes))
        return conv(jnp.concatenate([a, jax.nn.relu(conv(a, p["b"], *axes))], -1), p["c"], *axes)

    def first(p, x):
        axes = "NCHW", "OIHW"
        a = jax.nn.relu(conv(x.transpose(0, 3, 1, 2), p["a"], *axes))
        both = jnp.concatenate([a, jax.nn.relu(conv(a, p["b"], *axes))], 1)
        return conv(both, p["c"], *axes).transpose(0, 2, 3, 1)

    left = pure("haiku", last, a=(3, 3, 2, 4), b=(3, 3, 4, 4), c=(3, 3, 8, 2))
    right = pure("nnx", first, a=(4, 2, 3, 3), b=(4, 4, 3, 3), c=(2, 8, 3, 3))
    proposal = inferred(left, right, {"x": "float32[2,5,5,2]"})
    assert paths(proposal) == same("abc")
    assert infer_rows(proposal)[1] == ()


def test_ports_with_other_outputs_get_a_note():
    """The position of a leaf depends on the outputs: if these are not the same, a note says so."""
    left = pure("haiku", lambda p, x: x @ p["w"], w=(8, 8))
    right = pure("nnx", lambda p, x: (x @ p["w"], x.sum()), w=(8, 8))
    (note,) = inferred(left, right, X).notes
    assert note == (
        "haiku returns outputs of shapes [(3, 5, 8)], nnx of shapes [(3, 5, 8), ()]; outputs are compared in this order"
    )


def test_without_numbers_names_decide_ties_and_that_is_said(monkeypatch):
    """A model too large to be run for a proposal: only names distinguish query and key, and the evidence says so."""
    monkeypatch.setattr("equiv.infer.matching.by_gradient.MAX_GRADIENT_ELEMENTS", 100)
    proposal = inferred(pure("haiku", attention, **FOUR), pure("nnx", attention, **FOUR), X)
    assert {pair.left.path: pair.evidence for pair in proposal.pairs} == {
        **dict.fromkeys(("query", "key", "value"), "name"),
        "out": "position",
    }
    assert proposal.notes == ("256 elements are more than 100: no gradient was taken",)


def test_what_cannot_be_differentiated_is_left_to_names():
    """A gradient does not go through a loop of unknown length: that is a note, not a crash."""

    def looped(p, x):
        return jax.lax.while_loop(lambda c: c[1] < 2, lambda c: (attention(p, c[0]), c[1] + 1), (x, 0))[0]

    proposal = inferred(pure("haiku", looped, **FOUR), pure("nnx", looped, **FOUR), X)
    assert paths(proposal) == same(FOUR)
    assert "no gradient could be taken" in proposal.notes[0]


@st.composite
def stacks(draw):
    """A random network of layers of one width, and the shapes of its leaves."""
    kinds = draw(st.lists(st.sampled_from(("dense", "gate", "norm", "branch")), min_size=1, max_size=4))
    shapes = {}
    for at, kind in enumerate(kinds):
        names = {"dense": ("w", "b"), "gate": ("w", "v"), "norm": ("s", "b"), "branch": ("w", "b", "v", "c")}[kind]
        shapes |= {f"{name}{at}": (8, 8) if name in "wv" else (8,) for name in names}

    def run(p, x):
        for at, kind in enumerate(kinds):
            leaf = lambda name, at=at: p[f"{name}{at}"]  # noqa: E731
            if kind == "dense":
                x = x + jnp.tanh(x @ leaf("w") + leaf("b"))
            elif kind == "gate":
                x = jax.nn.silu(x @ leaf("w")) * (x @ leaf("v"))
            elif kind == "norm":
                x = norm(x, leaf("s"), leaf("b"))
            else:
                x = jnp.tanh(x @ leaf("w") + leaf("b")) + jnp.sin(x @ leaf("v") + leaf("c"))
        return x

    return run, shapes


@given(stacks(), st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_renaming_leaves_does_not_change_the_map(stack, seed):
    """Names break ties only: with random names in random order every leaf is mapped as before, to itself."""
    run, shapes = stack
    _, pairs = nameless(pure("haiku", run, **shapes), pure("nnx", run, **shapes), seed=seed)
    assert pairs == same(shapes)


@given(stacks(), st.integers(0, 99))
@settings(max_examples=6, deadline=None)
def test_the_map_from_right_to_left_is_the_inverse(stack, seed):
    """Which of two ports is the reference does not matter."""
    run, shapes = stack
    one, two = renamed(pure("haiku", run, **shapes), seed)[0], renamed(pure("nnx", run, **shapes), seed + 1)[0]
    there, back = paths(inferred(one, two, X)), paths(inferred(two, one, X))
    assert {right: left for left, right in there.items()} == back
