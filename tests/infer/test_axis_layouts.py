"""Leaves whose axes are permuted, merged and split: inferred tables that make the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infer_ports import inferred, pure, tabled_outputs

from equiv.core.layouts import Chain, MergeAxes, SplitAxis, SwapAxes
from equiv.infer.matching.relations import ElementMap
from equiv.infer.table.layout_search import canonical_layouts, layouts_agree
from equiv.infer.table.rows import infer_rows

X = {"x": "float32[3,5,6]"}


def heads(y):
    """(batch, time, heads * size) to (batch, time, heads, size), with four heads."""
    return y.reshape(*y.shape[:2], 4, -1)


def flat(p, x):
    """An attention without keys: kernels (in, heads * size) and (heads * size, out), a bias (heads * size)."""
    y = jax.nn.gelu(heads(x @ p["q"] + p["b"]))
    return jnp.tanh(y.reshape(*x.shape[:2], -1) @ p["out"])


def spelled(into, bias, out):
    """The same with einsum; the axes of the leaves are called d (in), h (head), s (size) and o (out)."""

    def run(p, x):
        added = jnp.einsum(f"{bias}->hs", p["b"])[None, None]
        y = jax.nn.gelu(jnp.einsum(f"btd,{into}->bths", x, p["q"]) + added)
        return jnp.tanh(jnp.einsum(f"bths,{out}->bto", y, p["out"]))

    sizes = {"d": 6, "h": 4, "s": 3, "o": 2}
    shapes = [tuple(sizes[name] for name in names) for names in (into, bias, out)]
    return pure("nnx", run, **dict(zip(("q", "b", "out"), shapes, strict=True)))


FLAT = pure("haiku", flat, q=(6, 12), b=(12,), out=(12, 2))


@pytest.mark.parametrize(
    "names",
    [("hds", "hs", "hso"), ("dhs", "hs", "ohs"), ("hsd", "hs", "hos"), ("dsh", "sh", "osh")],
)
def test_heads_anywhere_are_heads_side_by_side(names):
    """Heads first, last or in the middle of a kernel, a bias, an output projection: against one axis of all heads."""
    np.testing.assert_allclose(*tabled_outputs(FLAT, spelled(*names), X), atol=1e-6)


@pytest.mark.parametrize("names", ["OIH", "IOH", "HOI", "OHI", "IHO"])
def test_kernels_of_convolutions_have_any_order(names):
    """Window, input and output features in every order."""

    def conv(names):
        return lambda p, x: jnp.tanh(
            jax.lax.conv_general_dilated(x, p["w"], (1,), "SAME", dimension_numbers=("NHC", names, "NHC"))
        )

    sizes = {"H": 3, "I": 6, "O": 8}
    left = pure("haiku", conv("HIO"), w=(3, 6, 8))
    right = pure("nnx", conv(names), w=tuple(sizes[name] for name in names))
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-6)


def test_stacked_keys_and_values_are_side_by_side():
    """(2, in, heads, size) against (in, 2 * heads * size): both leaves stay whole."""

    def side_by_side(p, x):
        return attend(heads(x @ p["q"]), *(heads(y) for y in jnp.split(x @ p["kv"], 2, axis=-1)))

    def stacked(p, x):
        return attend(heads(x @ p["q"]), *jnp.einsum("btd,chds->cbths", x, p["kv"]))

    left = pure("haiku", side_by_side, q=(6, 12), kv=(6, 24))
    np.testing.assert_allclose(*tabled_outputs(left, pure("nnx", stacked, q=(6, 12), kv=(2, 4, 6, 3)), X), atol=1e-6)


def attend(q, k, v):
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v)


def by_head(p, x):
    """One kernel for query, key and value: all three of a head side by side."""
    y = (x @ p["w"]).reshape(*x.shape[:2], 4, 3, 3)
    return attend(y[..., 0, :], y[..., 1, :], y[..., 2, :])


def by_role(p, x):
    """The same with all heads of the query side by side, then the keys, then the values."""
    y = (x @ p["w"]).reshape(*x.shape[:2], 3, 4, 3)
    return attend(y[:, :, 0], y[:, :, 1], y[:, :, 2])


def test_packed_heads_are_found_by_what_the_ports_return():
    """Three roles and heads of size three: order and sizes do not say which is which, the outputs do."""
    left, right = pure("haiku", by_role, w=(6, 36)), pure("nnx", by_head, w=(6, 36))
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-6)


@pytest.mark.parametrize("heads", [4, 3])
def test_heads_of_any_size_are_not_their_number(heads):
    """(size, heads) against (heads * size), in two layers: by sizes, and where these are equal, by the outputs."""

    def layer(side_by_side, p, x):
        if side_by_side:
            found = attend(*((x @ p[name]).reshape(*x.shape[:2], heads, 3) for name in "qkv"))
            return x + found.reshape(*x.shape[:2], -1) @ p["o"]
        found = attend(*(jnp.einsum("btd,dsh->bths", x, p[name]) for name in "qkv"))
        return x + jnp.einsum("bths,sho->bto", found, p["o"])

    def port(library, side_by_side):
        into, out = ((6, 3 * heads), (3 * heads, 6)) if side_by_side else ((6, 3, heads), (3, heads, 6))
        shapes = {f"{name}{at}": out if name == "o" else into for name in "qkvo" for at in (0, 1)}

        def run(p, x):
            for at in (0, 1):
                x = layer(side_by_side, {name: p[f"{name}{at}"] for name in "qkvo"}, x)
            return x

        return pure(library, run, **shapes)

    np.testing.assert_allclose(*tabled_outputs(port("haiku", True), port("nnx", False), X), atol=1e-5)


def test_ports_that_differ_under_every_order_say_so():
    """The right port lacks its scale: the likeliest order is kept, and a note names the leaf."""
    left = pure("haiku", lambda p, x: by_role(p, x) * 0.5, w=(6, 36))
    proposal = inferred(left, pure("nnx", by_role, w=(6, 36)), X)
    (pair,) = proposal.pairs
    assert pair.element_map is not None
    assert pair.element_map.plain
    assert proposal.notes == ("the outputs differ under every order of axes that was tried for w",)


def test_rows_in_another_order_within_an_axis_are_a_split():
    """One axis is split, its parts are swapped and merged again."""
    left = pure("haiku", lambda p, x: x @ p["w"], w=(6, 4))
    right = pure("nnx", lambda p, x: x @ p["w"].reshape(3, 2, 4).transpose(1, 0, 2).reshape(6, 4), w=(6, 4))
    (row,), problems = infer_rows(inferred(left, right, X))
    assert problems == ()
    layout = Chain((SplitAxis(-2, (2, 3)), SwapAxes(-3, -2), MergeAxes(-3)))
    assert row.layer.layouts == {"haiku": {"": layout}}
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-6)


def test_a_layout_is_applied_before_it_is_written():
    """The layouts of another element map do not agree, nor do those of other shapes."""
    swapped = ElementMap((0, 0), ((2, 3, 1), (3, 1, 2)))
    layouts = canonical_layouts(swapped, ((2, 3), (3, 2)))
    assert layouts is not None
    assert layouts_agree(layouts, swapped, ((2, 3), (3, 2)))
    assert not layouts_agree(layouts, ElementMap((0, 0), ((6, 1, 1),)), ((2, 3), (3, 2)))
    assert not layouts_agree(layouts, swapped, ((2, 3), (2, 3)))


def test_one_element_may_have_any_number_of_axes():
    """A scale of shape () against (1, 1)."""
    left = pure("haiku", lambda p, x: jnp.tanh(x * p["scale"]), scale=())
    right = pure("nnx", lambda p, x: jnp.tanh(x * p["scale"]), scale=(1, 1))
    np.testing.assert_allclose(*tabled_outputs(left, right, X), atol=1e-6)
