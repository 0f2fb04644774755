"""Replay: a program given its own bits is the same program, without a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from named import trace_named
from programs.random_functions import KEY, X, carried, dropout, handed_on, held, layers, program_of, remat

from equiv.errors import PortError
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.draws import draw_bits
from equiv.programs.key_reuse import record_keys
from equiv.programs.transform import drop_random_outputs, make_draws_inputs, replay_draws


def mixed(key, x):
    """Five layers that draw with the key of all, with one of their own, and with a constant one."""

    def body(mine, h):
        return dropout(jax.random.key(3), dropout(key, h, 0.3) + dropout(mine, h, 0.4), 0.1)

    return layers(jax.random.fold_in(key, 1), x, body)


def repeated(key, x):
    """Dropout with one key until the sum is large."""

    def turn(h):
        return dropout(jax.random.fold_in(key, 1), h, 0.1) + 1

    return jax.lax.while_loop(lambda h: h.sum() < 60, turn, x)


def gradient(function):
    return lambda key, x: jax.value_and_grad(lambda x: jnp.sum(function(key, x) ** 2))(x)[1]


def either(key, x):
    """Draws in both branches, of different shapes."""
    return jax.lax.cond(
        x.sum() > 0, lambda x: dropout(key, x), lambda x: x * jax.random.uniform(jax.random.fold_in(key, 1)), x
    )


@jax.custom_vjp
def noisy_backward(key, x):
    return dropout(key, x)


noisy_backward.defvjp(
    lambda key, x: (dropout(key, x), key), lambda key, g: (None, dropout(jax.random.fold_in(key, 1), g))
)


@jax.custom_jvp
def _pair(key, x):
    return x * 2, dropout(key, x)


_pair.defjvp(lambda primals, tangents: (_pair(*primals), _pair(primals[0], tangents[1])))


def never_used(key, x):
    """A draw inside a call that jax does not look into when it removes dead equations."""
    return _pair(key, x)[0]


def compiled(program):
    return jax.jit(jaxpr_as_fun(program.jaxpr), compiler_options=FAST_COMPILE_OPTIONS)


def native_bits(program, *arrays):
    """What a program draws with its own key, each draw once, as `draw/i` wants it."""
    keyed = replay_draws(program)[1]
    given = dict(zip(program.inputs, (*arrays, KEY), strict=True))
    keys = jax.jit(lambda inputs: record_keys(keyed, inputs))([given[name] for name in keyed.program.inputs])
    return [_bits_of_keys(np.asarray(numbers), draw) for numbers, draw in zip(keys, keyed.draws, strict=True)]


def _bits_of_keys(numbers, draw):
    """Bits of many keys: the axes of loops and of keys come first, then those of one key's draw."""
    own = draw.shape[numbers.ndim - 1 :]
    keys = jax.random.wrap_key_data(numbers.reshape(-1, numbers.shape[-1]))
    bits = [np.asarray(jax.random.bits(key, own, f"uint{draw.bit_width}")) for key in keys]
    return np.stack(bits).reshape(draw.shape)


@pytest.mark.quick(15)
@pytest.mark.parametrize(
    "function",
    [
        dropout,
        jax.jit(dropout),
        gradient(dropout),
        remat(dropout),
        gradient(remat(dropout)),
        layers,
        lambda key, x: layers(key, x, reverse=True),
        gradient(layers),
        carried,
        gradient(carried),
        lambda key, x: layers(key, x, layers),
        held,
        handed_on,
        lambda key, x: layers(key, x, held),
        lambda key, x: held(key, x, layers),
        gradient(lambda key, x: held(key, x, remat(dropout))),
        mixed,
        lambda key, x: held(key, x, either),
        repeated,
        gradient(lambda key, x: layers(key, x, remat(dropout))),
        gradient(lambda key, x: carried(key, x, remat(dropout))),
        gradient(remat(layers)),
        either,
        lambda key, x: layers(key, x, either),
        gradient(remat(either)),
        gradient(noisy_backward),
        lambda key, x: jax.vmap(dropout)(jax.random.split(key, 3), x),
        lambda key, x: x + jax.random.normal(key, x.shape, "bfloat16"),
        lambda key, x: jax.random.permutation(key, x),
        lambda key, x: x[jax.random.categorical(key, x.T)],
    ],
    ids=[
        *("plain", "jit", "grad", "remat", "grad-of-remat", "scan", "scan-reversed", "grad-of-scan", "scan-carry"),
        *(
            "grad-of-scan-carry",
            "nested-scan",
            "scan-of-one-key",
            "scan-of-one-key-carried",
            "scan-of-scan-of-one-key",
            "scan-of-one-key-of-scan",
            "grad-of-scan-of-one-key-of-remat",
            "scan-of-mixed-keys",
            "scan-of-one-key-of-cond",
            "while-of-one-key",
            "grad-of-scan-of-remat",
            "grad-of-carry-of-remat",
            "grad-of-remat-of-scan",
        ),
        *(
            "cond",
            "scan-of-cond",
            "grad-of-remat-of-cond",
            "custom_vjp",
            "vmap",
            "bfloat16",
            "permutation",
            "categorical",
        ),
    ],
)
def test_a_program_given_its_own_bits_is_bit_exact(function):
    assert_replayed(function, np.abs(X))


@pytest.mark.parametrize("function", [either, gradient(remat(either))], ids=["cond", "grad-of-remat-of-cond"])
def test_replay_holds_in_the_other_branch_too(function):
    assert_replayed(function, -np.abs(X))


def assert_replayed(function, x):
    program = program_of(function, x)
    replayed = make_draws_inputs(program, float64=False)
    assert not any(name.is_random for name in replayed.inputs)
    given = native_bits(program, x)
    assert [draw.shape for draw in replayed.draws] == [array.shape for array in given]
    native, again = (compiled(one) for one in (program, replayed))
    np.testing.assert_array_equal(again(x, *given)[0], native(x, KEY)[0])


def test_other_bits_give_other_results():
    replayed = make_draws_inputs(program_of(dropout, X), float64=False)
    outputs = [jaxpr_as_fun(replayed.jaxpr)(X, draw_bits(replayed.draws[0], (seed,)))[0] for seed in (1, 2)]
    assert not np.array_equal(*outputs)


def test_a_program_without_randomness_keeps_its_result_without_a_key():
    replayed = make_draws_inputs(program_of(lambda key, x: jnp.sin(x), X), float64=False)
    assert list(map(str, replayed.inputs)) == ["x0"]
    np.testing.assert_array_equal(jaxpr_as_fun(replayed.jaxpr)(X)[0], jnp.sin(X))


def test_a_key_that_is_only_split_is_no_dependence():
    program = program_of(lambda key, x: x + 0 * jax.random.split(key).shape[0], X)
    assert list(map(str, make_draws_inputs(program, float64=False).inputs)) == ["x0"]


def test_random_state_is_no_output_and_no_input():
    specs = {"random/count": jax.ShapeDtypeStruct((), "uint32"), "x": jax.ShapeDtypeStruct((3,), "float32")}
    counting = trace_named(
        "p", lambda named: {"random/count": named["random/count"] + 1, "output": named["x"] * 2}, specs
    )
    assert [name.text for name in drop_random_outputs(counting).outputs] == ["output"]
    assert list(map(str, drop_random_outputs(counting).inputs)) == ["x"]


def test_the_next_random_state_is_a_program_of_its_own():
    specs = {"random/count": jax.ShapeDtypeStruct((), "uint32"), "key": jax.eval_shape(lambda: KEY)}

    def step(named):
        drawn = jax.random.uniform(jax.random.fold_in(named["key"], named["random/count"]), (2,))
        return {"output": drawn, "random/count": named["random/count"] + 1}

    replayed, keyed = replay_draws(trace_named("p", step, specs))
    assert list(map(str, replayed.inputs)) == ["draw/0"]
    assert [name.text for name in keyed.next_state.outputs] == ["random/count"]
    assert int(jaxpr_as_fun(keyed.next_state.jaxpr)(jnp.uint32(4))[0]) == 5


@pytest.mark.parametrize(
    "function",
    [
        lambda key, x: (dropout(key, x), x * 2)[1],
        lambda key, x: jax.jit(lambda x: (x * 2, dropout(key, x)))(x)[0],
        lambda key, x: never_used(key, x),
        lambda key, x: jax.lax.scan(lambda h, key: (h * 2, dropout(key, h)), x, jax.random.split(key, 3))[0],
        lambda key, x: jax.lax.scan(lambda h, _: ((h[0] * 2, dropout(key, h[1])), None), (x, x), None, 3)[0][0],
    ],
    ids=["plain", "jit", "custom_jvp", "scan", "scan-carry"],
)
def test_a_draw_that_no_output_depends_on_is_none(function):
    replayed, keyed = replay_draws(program_of(function, X))
    assert (replayed.draws, keyed.draws, keyed.sites) == ((), (), {})
    assert list(map(str, replayed.inputs)) == ["x0"]


def test_a_dead_draw_leaves_the_others_their_order():
    def function(key, x):
        first, dead, last = jax.random.split(key, 3)
        return jnp.sum(never_used(dead, dropout(first, x))) + jax.random.normal(last, (2,))

    program = program_of(function, X)
    replayed = make_draws_inputs(program, float64=False)
    assert [draw.shape for draw in replayed.draws] == [(3, 4), (2,)]
    assert list(map(str, replayed.inputs)) == ["x0", "draw/0", "draw/1"]
    again, native = compiled(replayed)(X, *native_bits(program, X)), compiled(program)(X, KEY)
    np.testing.assert_array_equal(again[0], native[0])


@pytest.mark.parametrize(
    ("function", "user"),
    [
        (lambda key, x: x * jax.random.key_data(key)[0].astype("float32"), "random_unwrap"),
        (lambda key, x: dropout(key, x) + jax.random.key_data(key)[0].astype("float32"), "random_unwrap"),
        (lambda key, x: x * jax.random.gamma(key, 2.0, x.shape), r"\w+"),
        (lambda key, x: jax.random.wrap_key_data(jax.random.key_data(key)), "random_unwrap|an output"),
    ],
    ids=["data", "data-and-draw", "gamma", "key-as-output"],
)
def test_another_use_of_the_key_is_refused_with_the_primitive(function, user):
    with pytest.raises(
        PortError,
        match=rf"p: the result depends on key other than through random bits \(({user})\), "
        r"so its randomness cannot be replayed\. Use jax\.random functions",
    ):
        make_draws_inputs(program_of(function, X), float64=False)
