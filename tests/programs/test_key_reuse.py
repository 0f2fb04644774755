"""Key reuse: one key in two draws is found whatever their shapes, and what is no reuse is not."""

import jax
import jax.numpy as jnp
import pytest
from named import trace_named

from equiv.programs.key_reuse import lower_keys
from equiv.programs.transform import replay_draws

KEY = jax.eval_shape(lambda: jax.random.key(0))
X = jax.ShapeDtypeStruct((3, 4), "float32")


def normal(key, *shape):
    return jax.random.normal(key, shape)


def pairs(function, name="train __call__"):
    """Of a function of a key and an array: the places of draws that share a key, and the number of keys."""
    program = trace_named(name, lambda given: {"output": function(given["key"], given["batch/x"])}, SPECS)
    reused, number = lower_keys([replay_draws(program)[1]], dict)()
    return [(one.first[1], one.second[1]) for one in reused], number


SPECS = {"key": KEY, "batch/x": X}


def split(key, _):
    one, two = jax.random.split(key)
    return normal(one, 5, 3) + normal(two, 3)


def other_shapes(key, _):
    return normal(key, 5, 3) + normal(key, 3)


def derived_alike(key, _):
    """The same key, derived twice: equal numbers and not equal equations."""
    one = jax.random.fold_in(key, 1 + jnp.zeros((), int))
    return normal(one, 5, 3) + normal(jax.random.fold_in(key, 1), 3)


def in_a_scan(key, x):
    def turn(h, key):
        return h + normal(key, 4) * normal(key, 3, 4), None

    return jax.lax.scan(turn, x, jax.random.split(key, 3))[0]


def in_the_loop_and_before(key, x):
    return jax.lax.scan(lambda h, _: (h * normal(key, 3, 4), None), x * normal(key), None, length=5)[0]


def in_two_layers(key, x):
    one, two = jax.random.split(key)
    keys = jnp.stack([one, two, one])
    return jax.lax.scan(lambda h, key: (h + normal(key, 3, 4), None), x, keys)[0]


def in_an_array_of_keys(key, x):
    one, two = jax.random.split(key)
    return x * jax.vmap(lambda key: normal(key, 4))(jnp.stack([one, two, one]))


def in_a_branch_and_after(key, x):
    x = jax.lax.cond(x.sum() > 0, lambda x: x * normal(key, 3, 4), lambda x: x, x)
    return x + normal(key, 4)


def in_the_second_branch_and_after(key, x):
    other = jax.random.fold_in(key, 1)
    x = jax.lax.cond(x.sum() > 0, lambda x: x * normal(other, 4), lambda x: x * normal(key, 4), x)
    return x + normal(key, 3, 4)


def of_one_element(key, _):
    return normal(key) + normal(key, 1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (other_shapes, [(0, 1)]),
        (derived_alike, [(0, 1)]),
        (in_a_scan, [(0, 1), (2, 3), (4, 5)]),
        (in_the_loop_and_before, [(0, 1)]),
        (in_two_layers, [(0, 2)]),
        (in_an_array_of_keys, [(0, 0)]),
        (in_a_branch_and_after, [(0, 1)]),
        (in_the_second_branch_and_after, [(0, 2)]),  # jax lists the branch of False first
        (of_one_element, [(0, 1)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_key_in_two_draws_is_found_at_their_numbers(function, expected):
    assert pairs(function)[0] == expected


def in_one_branch_or_the_other(key, x):
    return jax.lax.cond(x.sum() > 0, lambda x: x * normal(key, 3, 4), lambda x: x * normal(key, 4), x)


def recomputed(key, x):
    """`jax.checkpoint` draws again in the backward pass what the forward pass drew."""
    return jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(x * normal(key, 3, 4)))(x).sum())(x)


def held(key, x):
    """One mask for all iterations is one draw."""
    return jax.lax.scan(lambda h, _: (h * normal(key, 3, 4), None), x, None, length=5)[0]


def held_in_a_while(key, x):
    return jax.lax.while_loop(lambda h: h.sum() < 9, lambda h: h + normal(jax.random.fold_in(key, 1), 3, 4) ** 2, x)


def constant(key, x):
    """Fixed features are no draws: the same numbers in every step, and for every shape."""
    fixed = jax.random.key(3)
    return x * normal(fixed, 3, 4) + normal(fixed, 4) + normal(key)


def dead(key, x):
    normal(key, 4)
    return x * normal(key, 3, 4)


@pytest.mark.parametrize(
    ("function", "number"),
    [
        (split, 2),
        (in_one_branch_or_the_other, 2),
        (recomputed, 1),
        (held, 1),
        (held_in_a_while, 1),
        (constant, 1),
        (dead, 1),
        (lambda key, x: x * normal(jax.random.key(1), 4), 0),
    ],
    ids=["split", "branches", "recomputed", "held", "held-in-a-while", "constant", "dead", "only-constant"],
)
def test_keys_used_once_are_counted_and_not_reported(function, number):
    assert pairs(function) == ([], number)


@pytest.mark.parametrize("name", ["eval __call__", "call encode", "gradient __call__", "step"])
def test_every_program_is_looked_at(name):
    assert (0, 1) in pairs(other_shapes, name)[0]


@pytest.mark.parametrize(("advances", "expected"), [(True, []), (False, [((0, 0), (1, 0))])])
def test_random_state_must_advance_from_step_to_step(advances, expected):
    """A count that is not kept: both steps draw with one key, and no call does so by itself."""
    specs = {"random/key": KEY, "random/count": jax.ShapeDtypeStruct((), "uint32")}

    def step(given):
        key, count = given["random/key"], given["random/count"]
        return {
            "output": normal(jax.random.fold_in(key, count), 2),
            "random/key": key,
            "random/count": count + 1 if advances else count,
        }

    def state():
        return dict(zip(program.inputs, (jax.random.key(4), jnp.uint32(0)), strict=True))

    program = trace_named("step", step, specs)
    reused, number = lower_keys([replay_draws(program)[1]], state)()
    assert [(one.first, one.second) for one in reused] == expected
    assert number == 2
    call = trace_named("train __call__", lambda given: {"output": step(given)["output"]}, specs)
    assert lower_keys([replay_draws(call)[1]], state)() == ((), 1)


def test_a_reuse_names_both_lines_and_the_program():
    program = trace_named("eval encode", lambda given: {"output": other_shapes(given["key"], given["batch/x"])}, SPECS)
    ((reuse,), _) = lower_keys([replay_draws(program)[1]], dict)()
    assert str(reuse.program) == "eval encode"
    assert reuse.text.count("test_key_reuse.py") == 2
    assert "draw 0" in reuse.text.split(" = ")[0]
