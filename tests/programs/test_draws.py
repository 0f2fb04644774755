"""Draws: every place where a program draws is found once, whatever it is wrapped in; replayed bits mean one number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.errors import PortError
from equiv.programs.draws import count_draws, draw_bits, find_draws
from equiv.programs.program import Draw

X = jax.ShapeDtypeStruct((3, 4), "float32")
KEY = jax.eval_shape(lambda: jax.random.key(0))


def dropout(key, x, rate=0.5):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


@jax.custom_jvp
def with_own_jvp(key, x):
    return dropout(key, x)


with_own_jvp.defjvp(lambda primals, tangents: (with_own_jvp(*primals), tangents[1]))


@jax.custom_vjp
def with_own_vjp(key, x):
    return dropout(key, x)


with_own_vjp.defvjp(lambda key, x: (with_own_vjp(key, x), None), lambda _, g: (None, g))


def layers(key, x, body=dropout, **options):
    """Dropout in five layers, each with its own key."""
    return jax.lax.scan(lambda h, key: (body(key, h), None), x, jax.random.split(key, 5), **options)[0]


def carried(key, x, body=dropout):
    """Dropout in five layers; the key travels with the values, as in `hk.scan`."""

    def turn(carry, _):
        key, mine = jax.random.split(carry[1])
        return (body(mine, carry[0]), key), None

    return jax.lax.scan(turn, (x, key), None, length=5)[0][0]


def remat(function):
    return lambda key, x: jax.checkpoint(lambda x: jnp.sin(function(key, jnp.sin(x))))(x)


def gradient(function):
    """Loss and gradient: what `equiv.programs.trace.trace_gradient` asks for."""
    return lambda key, x: jax.value_and_grad(lambda x: jnp.sum(function(key, x)))(x)


def either(key, x):
    return jax.lax.cond(x.sum() > 0, lambda x: dropout(key, x), lambda x: x, x)


def found(function):
    return find_draws(jax.make_jaxpr(function)(KEY, X))


def shapes(function):
    return [draw.shape for draw in found(function)[0]]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (dropout, (3, 4)),
        (jax.jit(dropout), (3, 4)),
        (with_own_jvp, (3, 4)),
        (with_own_vjp, (3, 4)),
        (jax.checkpoint(dropout), (3, 4)),
        (lambda key, x: jax.vmap(dropout, in_axes=(None, 0))(key, x), (4,)),
        (lambda key, x: jax.vmap(dropout)(jax.random.split(key, 3), x), (3, 4)),
        (layers, (5, 3, 4)),
        (carried, (5, 3, 4)),
        (lambda key, x: layers(key, x, layers), (5, 5, 3, 4)),
        (either, (3, 4)),
        (lambda key, x: layers(key, x, either), (5, 3, 4)),
        (lambda key, x: jax.random.normal(key, (7,)), (7,)),
        (lambda key, x: jax.random.permutation(key, x), (3,)),
    ],
    ids=[
        *("plain", "jit", "custom_jvp", "custom_vjp", "remat", "vmap-of-one-key", "vmap-of-keys", "scan", "scan-carry"),
        *("nested-scan", "cond", "scan-of-cond", "normal", "permutation"),
    ],
)
def test_a_draw_is_found_through_wrappers_with_scan_length_first(function, shape):
    drawn, indices = found(function)
    assert [draw.shape for draw in drawn] == [shape]
    assert indices == [0]
    assert drawn[0].bit_width == 32


def test_a_draw_says_where_it_stands_in_the_users_file():
    assert "test_draws.py" in found(dropout)[0][0].where


def test_a_program_that_draws_nothing_has_no_draws():
    assert found(lambda key, x: x) == ([], [])
    assert count_draws(jax.make_jaxpr(lambda key, x: jax.random.split(key))(KEY, X)) == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda key, x: dropout(key, x) + dropout(key, x),
        gradient(remat(dropout)),
        gradient(lambda key, x: layers(key, x, remat(dropout))),
        gradient(lambda key, x: carried(key, x, remat(dropout))),
        gradient(remat(layers)),
        gradient(remat(lambda key, x: layers(key, x, remat(dropout)))),
        gradient(lambda key, x: layers(key, x, remat(lambda key, x: layers(key, x, remat(dropout))))),
        gradient(lambda key, x: layers(key, x, remat(dropout), reverse=True)),
        gradient(remat(either)),
    ],
    ids=[
        *("twice", "remat", "scan-of-remat", "carry-of-remat", "remat-of-scan", "remat-of-scan-of-remat"),
        *("nested-scan-of-remat", "reversed-scan-of-remat", "remat-of-cond"),
    ],
)
def test_draws_with_the_same_key_are_one_draw(function):
    """`jax.checkpoint` draws again in the backward pass, with the key of the forward pass."""
    drawn, indices = found(function)
    assert len(drawn) == 1
    assert len(indices) > 1
    assert set(indices) == {0}


def derived(transform):
    """Two dropouts whose keys come out of the same construct, with another number in it."""
    return lambda key, x: dropout(transform(key, x, 1), x) + dropout(transform(key, x, 2), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda key, x: dropout(jax.random.key(1), x) + dropout(jax.random.key(2), x) + dropout(key, x)[:0].sum(),
        lambda key, x: sum(dropout(one, x) for one in jax.random.split(key)),
        derived(lambda key, x, number: jax.random.fold_in(key, number)),
        derived(lambda key, x, number: jax.jit(jax.random.fold_in, static_argnums=1)(key, number)),
        derived(
            lambda key, x, number: jax.lax.scan(
                lambda key, _: (jax.random.fold_in(key, number), None), key, None, length=3
            )[0]
        ),
        derived(
            lambda key, x, number: jax.lax.cond(
                x.sum() > 0, lambda key: jax.random.fold_in(key, number), lambda key: key, key
            )
        ),
        derived(
            lambda key, x, number: jax.lax.while_loop(
                lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, jax.random.fold_in(carry[1], number)), (0, key)
            )[1]
        ),
        lambda key, x: layers(key, x) + layers(key, x, lambda key, x: dropout(jax.random.fold_in(key, 1), x)),
        lambda key, x: layers(key, x) + carried(key, x),
        lambda key, x: dropout(key, x) + jax.random.normal(key, (2,)).sum(),
    ],
    ids=["constant", "split", "fold", "jit", "scan", "cond", "while", "layers", "layers-carried", "shape"],
)
def test_draws_with_different_keys_or_shapes_stay_different(function):
    drawn, indices = found(function)
    assert len(drawn) == max(indices) + 1 >= 2


def test_draws_are_listed_in_program_order():
    def function(key, x):
        first, second = jax.random.split(key)
        return jax.random.normal(first, (2,)).sum() + jax.random.normal(second, (5,)).sum() + dropout(first, x)

    assert shapes(function) == [(2,), (5,), (3, 4)]


@pytest.mark.parametrize(
    "loop",
    [
        lambda key, x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: dropout(key, x) + 1, x),
        lambda key, x: jax.lax.fori_loop(0, jnp.int32(x[0, 0]), lambda i, x: dropout(key, x), x),
        lambda key, x: layers(
            key, x, lambda key, x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: dropout(key, x) + 1, x)
        ),
    ],
    ids=["while", "fori", "scan-of-while"],
)
def test_a_while_loops_draw_is_refused_with_its_place(loop):
    with pytest.raises(
        PortError,
        match=r"a random draw inside while at .*test_draws\.py:\d+.* cannot be replayed: .*"
        r"Draw outside the loop, or use jax\.lax\.scan",
    ):
        found(loop)


DRAW = {width: Draw((4096,), width, "") for width in (8, 16, 32, 64)}
SEEDS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 7))


def uniform(random):
    """Bits to a float in [0, 1), as `jax.random.uniform` does it: the upper ones are the mantissa of one in [1, 2)."""
    width = random.dtype.itemsize * 8
    mantissa, one, float_type = {32: (23, 0x3F800000, "float32"), 64: (52, 0x3FF0000000000000, "float64")}[width]
    shifted = (random >> random.dtype.type(width - mantissa)) | random.dtype.type(one)
    return shifted.view(float_type) - np.ones((), float_type)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_bits_are_the_same_uniform_in_32_and_64_bits(seed):
    narrow, wide = uniform(draw_bits(DRAW[32], seed)), uniform(draw_bits(DRAW[64], seed))
    np.testing.assert_array_equal(narrow.astype("float64"), wide)
    assert narrow.min() > 0
    assert narrow.max() < 1


def test_bits_are_spread_evenly():
    counts = np.histogram(uniform(draw_bits(DRAW[32], (1, 2))), bins=8, range=(0, 1))[0]
    assert counts.min() > 420
    assert counts.max() < 610


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([8, 16, 32]))
def test_a_narrow_draws_bits_are_a_wider_ones_upper_bits(seed, width):
    narrow, wide = draw_bits(DRAW[width], seed), draw_bits(DRAW[64], seed)
    assert narrow.dtype == f"uint{width}"
    np.testing.assert_array_equal(narrow, (wide >> np.uint64(64 - width)).astype(narrow.dtype))


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.9]))
def test_dropout_masks_agree_across_widths(seed, rate):
    masks = []
    for width, dtype in ((32, np.float32), (64, np.float64)):
        number = uniform(draw_bits(DRAW[width], seed))
        masks.append((number < dtype(1 - rate), number < dtype(rate), number >= dtype(rate)))
    for narrow, wide in zip(*masks, strict=True):
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("width", [32, 64])
def test_no_number_equals_a_short_rate(width):
    """So that `u < rate` and `u <= rate` are one mask."""
    number = uniform(draw_bits(Draw((2**20,), width, ""), (1, 2)))
    assert not np.isin(number, np.arange(1, 256) / 256).any()


def test_bits_repeat_for_a_seed_and_differ_between_seeds():
    np.testing.assert_array_equal(draw_bits(DRAW[32], (1, 2)), draw_bits(DRAW[32], (1, 2)))
    assert not np.array_equal(draw_bits(DRAW[32], (1, 2)), draw_bits(DRAW[32], (1, 3)))
