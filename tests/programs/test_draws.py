"""Draws: every place where a program draws is found once, whatever it is wrapped in."""

import jax
import jax.numpy as jnp
import pytest
from named import make_program
from programs.random_functions import carried, dropout, handed_on, held, layers, remat

from equiv.errors import PortError
from equiv.programs.draws import count_draws, find_draws
from equiv.programs.program import iteration_numbers

X = jax.ShapeDtypeStruct((3, 4), "float32")
KEY = jax.eval_shape(lambda: jax.random.key(0))


@jax.custom_jvp
def with_own_jvp(key, x):
    return dropout(key, x)


with_own_jvp.defjvp(lambda primals, tangents: (with_own_jvp(*primals), tangents[1]))


@jax.custom_vjp
def with_own_vjp(key, x):
    return dropout(key, x)


with_own_vjp.defvjp(lambda key, x: (with_own_vjp(key, x), None), lambda _, g: (None, g))


def gradient(function):
    """Loss and gradient: what `equiv.programs.trace.trace_gradient` asks for."""
    return lambda key, x: jax.value_and_grad(lambda x: jnp.sum(function(key, x)))(x)


def either(key, x):
    return jax.lax.cond(x.sum() > 0, lambda x: dropout(key, x), lambda x: x, x)


def found(function):
    """The draws of a function of a key and an array, and for each equation that draws the number of its draw."""
    outputs = [f"output/{index}" for index in range(len(jax.tree.leaves(jax.eval_shape(function, KEY, X))))]
    drawn, sites = find_draws(make_program("p", jax.make_jaxpr(function)(KEY, X), ("key", "batch/x"), outputs))
    return drawn, [site.draw for site in sites.values()]


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
    assert "random_functions.py" in found(dropout)[0][0].where


def test_a_program_that_draws_nothing_has_no_draws():
    assert found(lambda key, x: x) == ((), [])
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
    ids=["split", "fold", "jit", "scan", "cond", "while", "layers", "layers-carried", "shape"],
)
def test_draws_with_different_keys_or_shapes_stay_different(function):
    drawn, indices = found(function)
    assert len(drawn) == max(indices) + 1 >= 2


CONSTANT_KEY = jax.random.key(5)


@pytest.mark.parametrize(
    "function",
    [
        lambda key, x: dropout(jax.random.key(1), x) + dropout(jax.random.key(2), x),
        lambda key, x: dropout(CONSTANT_KEY, x),
        lambda key, x: dropout(jax.random.PRNGKey(1), x),
        lambda key, x: layers(jax.random.key(1), x),
        lambda key, x: carried(CONSTANT_KEY, x),
        lambda key, x: dropout(jax.random.fold_in(CONSTANT_KEY, x[0, 0].astype(int)), x),
        lambda key, x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: dropout(CONSTANT_KEY, x) + 1, x),
        gradient(remat(lambda key, x: dropout(CONSTANT_KEY, x))),
    ],
    ids=["made-inside", "made-outside", "raw", "scan", "scan-carry", "folded-with-an-input", "while", "grad-of-remat"],
)
def test_what_a_constant_key_draws_is_no_draw(function):
    assert found(function) == ((), [])
    assert len(found(lambda key, x: (function(key, x), dropout(key, x)))[0]) == 1


def test_a_bank_of_keys_chosen_at_random_is_one_draw():
    """Which of four fixed keys is drawn with the run's key; what they draw is fixed."""

    def function(key, x):
        return dropout(jax.random.split(CONSTANT_KEY, 4)[jax.random.randint(key, (), 0, 4)], x)

    assert shapes(function) == [(), ()]  # `randint` draws an upper and a lower half


def unrolled(key, x):
    return dropout(key, dropout(key, x))


def copied(key, x, body=dropout):
    """The same, from an array of equal keys."""
    return jax.lax.scan(lambda h, key: (body(key, h), None), x, jnp.broadcast_to(key, 5))[0]


def raw(key, x, body=dropout):
    """The same, from the numbers of equal keys."""
    keys = jnp.stack([jax.random.key_data(key)] * 5)
    return jax.lax.scan(lambda h, one: (body(jax.random.wrap_key_data(one), h), None), x, keys)[0]


@pytest.mark.parametrize(
    "function",
    [
        unrolled,
        held,
        copied,
        handed_on,
        raw,
        lambda key, x: held(key, x, held),
        gradient(lambda key, x: held(key, x, remat(dropout))),
        gradient(lambda key, x: handed_on(key, x, remat(dropout))),
        lambda key, x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: dropout(key, x) + 1, x),
        lambda key, x: jax.lax.fori_loop(0, jnp.int32(x[0, 0]), lambda i, x: dropout(key, x), x),
        lambda key, x: dropout(key, x) + held(key, x),
    ],
    ids=[
        *("unrolled", "held", "copied", "carried", "raw", "nested", "grad-of-remat", "grad-of-carried-remat"),
        *("while", "fori", "also-before-the-loop"),
    ],
)
def test_a_key_that_a_loop_does_not_change_draws_once(function):
    assert shapes(function) == [(3, 4)]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda key, x: layers(key, x, held), (5, 3, 4)),
        (lambda key, x: held(key, x, layers), (5, 3, 4)),
        (
            lambda key, x: jax.lax.scan(
                lambda carry, _: ((dropout(carry[1], carry[0]), carry[2], carry[1]), None),
                (x, *jax.random.split(key)),
                None,
                length=5,
            )[0][0],
            (5, 3, 4),
        ),
    ],
    ids=["outer-loop-changes-it", "inner-loop-changes-it", "two-keys-in-turn"],
)
def test_a_draw_has_axes_of_loops_that_change_its_key(function, shape):
    assert shapes(function) == [shape]


def test_square_nests_with_keys_exchanged_are_two_draws():
    """Keys of the outer row and of the inner one, folded in either order: equal lengths must not make them one."""

    def nest(first):
        def function(key, x):
            rows = jax.random.randint(key, (3,), 0, 9)

            def turn(h, inner):
                def inner_turn(h, outer):
                    one, other = (inner, outer) if first else (outer, inner)
                    return dropout(jax.random.fold_in(jax.random.fold_in(key, one), other), h), None

                return jax.lax.scan(inner_turn, h, rows)[0], None

            return jax.lax.scan(turn, x, rows)[0]

        return function

    assert shapes(lambda key, x: nest(True)(key, x) + nest(False)(key, x))[-2:] == [(3, 3, 3, 4)] * 2


def mixed(key, x):
    """Five layers, each with a draw of its own before and after one that all of them share."""

    def body(mine, h):
        first, last = jax.random.split(mine)
        return dropout(last, dropout(key, dropout(first, h)))

    return layers(jax.random.fold_in(key, 1), x, body)


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (layers, [(0, 1, 2, 3, 4)]),
        (held, [(0,)]),
        (lambda key, x: dropout(jax.random.fold_in(key, 2), layers(key, x)), [(0, 1, 2, 3, 4), (5,)]),
        (mixed, [(0, 3, 5, 7, 9), (1,), (2, 4, 6, 8, 10)]),
        (lambda key, x: held(key, x, layers), [(0, 1, 2, 3, 4)]),
    ],
    ids=["own-keys", "one-key", "one-after", "mixed", "inner-loop"],
)
def test_draws_of_a_loop_are_numbered_as_unrolled(function, numbers):
    assert iteration_numbers(found(function)[0]) == numbers


def test_draws_are_listed_in_program_order():
    def function(key, x):
        first, second = jax.random.split(key)
        return jax.random.normal(first, (2,)).sum() + jax.random.normal(second, (5,)).sum() + dropout(first, x)

    assert shapes(function) == [(2,), (5,), (3, 4)]


def until(key, x):
    """Dropout with a new key in every iteration, for as long as it takes."""

    def turn(carry):
        key, mine = jax.random.split(carry[1])
        return dropout(mine, carry[0]) + 1, key

    return jax.lax.while_loop(lambda carry: carry[0].sum() < 9, turn, (x, key))[0]


@pytest.mark.parametrize(
    "loop",
    [
        until,
        lambda key, x: jax.lax.fori_loop(0, jnp.int32(x[0, 0]), lambda i, x: dropout(jax.random.fold_in(key, i), x), x),
        lambda key, x: layers(key, x, until),
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
