"""Rewriting: a program given its own bits is the same program; in float64 nothing in it is narrower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from named import trace_named

from equiv.errors import PortError
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.draws import draw_bits
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr
from equiv.programs.key_reuse import record_keys
from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.prover.value_numbering import number_program
from equiv.programs.transform import drop_random_outputs, make_draws_inputs, replay_draws

KEY = jax.random.key(7)
X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
ROWS = np.array([0, 1, 0])


def dropout(key, x, rate=0.5):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def layers(key, x, body=dropout, **options):
    """Dropout in four layers, each with its own key."""
    return jax.lax.scan(lambda h, key: (jnp.sin(body(key, h)) + x, None), x, jax.random.split(key, 4), **options)[0]


def carried(key, x, body=dropout):
    """Dropout in four layers; the key travels with the values, as in `hk.scan`."""

    def turn(carry, _):
        key, mine = jax.random.split(carry[1])
        return (jnp.sin(body(mine, carry[0])) + x, key), None

    return jax.lax.scan(turn, (x, key), None, length=4)[0][0]


def held(key, x, body=dropout):
    """Dropout in four layers that have one key."""
    return jax.lax.scan(lambda h, _: (jnp.sin(body(key, h)) + x, None), x, None, length=4)[0]


def handed_on(key, x):
    """The same; the key is in the carry, and stays what it is."""
    return jax.lax.scan(lambda carry, _: ((dropout(carry[1], carry[0]), carry[1]), None), (x, key), None, length=4)[0][
        0
    ]


def mixed(key, x):
    """Four layers that draw with the key of all, with one of their own, and with a constant one."""

    def body(mine, h):
        return dropout(jax.random.key(3), dropout(key, h, 0.3) + dropout(mine, h, 0.4), 0.1)

    return layers(jax.random.fold_in(key, 1), x, body)


def repeated(key, x):
    """Dropout with one key until the sum is large."""

    def turn(h):
        return dropout(jax.random.fold_in(key, 1), h, 0.1) + 1

    return jax.lax.while_loop(lambda h: h.sum() < 60, turn, x)


def remat(function):
    return lambda key, x: jax.checkpoint(lambda x: jnp.sin(function(key, jnp.sin(x))))(x)


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


def program_of(function, *arrays, key=True):
    """A function of a key and arrays as a program; an input `x0` for each array."""
    specs = {f"x{index}": jax.ShapeDtypeStruct(array.shape, array.dtype) for index, array in enumerate(arrays)}
    with_key = {**specs, "key": jax.eval_shape(lambda: KEY)}
    return trace_named(
        "p", lambda named: {"output": function(named["key"], *(named[name] for name in specs))}, with_key
    )


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


CONSTANT_KEY = jax.random.key(42)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: jax.random.normal(jax.random.key(42), (4,)),
        lambda: jax.random.normal(CONSTANT_KEY, (4,)),
        lambda: jax.random.normal(jax.random.PRNGKey(42), (4,)),
        lambda: jax.random.normal(jax.random.wrap_key_data(jnp.array([0, 42], "uint32")), (4,)),
    ],
    ids=["made-inside", "made-outside", "raw", "wrapped"],
)
def test_a_constant_key_however_made_gives_one_name(draw):
    (name,), (other,) = (
        [value.name for value in number_program(make_draws_inputs(program_of(one, X), float64=False)).values()]
        for one in (lambda key, x: x * draw(), lambda key, x: x * jax.random.normal(jax.random.key(42), (4,)))
    )
    assert name == other


@pytest.mark.parametrize(
    "draw",
    [
        lambda: jax.random.normal(jax.random.key(43), (4,)),
        lambda: jax.random.normal(jax.random.fold_in(CONSTANT_KEY, 0), (4,)),
        lambda: jax.random.normal(jax.random.split(CONSTANT_KEY)[0], (4,)),
        lambda: jax.random.normal(jax.random.key(42, impl="rbg"), (4,)),
    ],
    ids=["other-seed", "folded", "split", "other-generator"],
)
def test_another_constant_key_gives_another_name(draw):
    (name,), (other,) = (
        [value.name for value in number_program(make_draws_inputs(program_of(one, X), float64=False)).values()]
        for one in (lambda key, x: x * draw(), lambda key, x: x * jax.random.normal(jax.random.key(42), (4,)))
    )
    assert name != other


@pytest.mark.parametrize("float64", [False, True])
def test_a_constant_key_draws_its_own_bits_in_both_precisions(float64):
    """A float64 program draws 64 bits for each number: the upper ones are those of the port's own precision."""
    x = np.ones((3, 4), "float64" if float64 else "float32")
    with jax.enable_x64(float64):
        program = make_draws_inputs(program_of(lambda key, x: x * jax.random.uniform(CONSTANT_KEY, (4,)), x), float64)
        (output,) = jaxpr_as_fun(program.jaxpr)(x)
    assert any(name == RANDOM_BITS for name, _ in avals(program.jaxpr))
    assert program.draws == ()
    wanted = np.broadcast_to(jax.random.uniform(CONSTANT_KEY, (4,)), (3, 4))
    assert np.max(np.abs(np.asarray(output) - wanted)) <= np.finfo("float32").eps


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


def narrow(array):
    return array.astype(jnp.bfloat16)


@jax.custom_vjp
def exponential(x):
    return narrow(jnp.exp(x))


exponential.defvjp(
    lambda x: (exponential(x), narrow(x)), lambda x, g: (g * jnp.exp(x).astype(jnp.float16).astype(g.dtype),)
)


def scanned(x):
    return jax.lax.scan(lambda h, row: (narrow(jnp.tanh(h + row)), narrow(h)), jnp.zeros(4, "bfloat16"), narrow(x))[0]


def scanned_in_numpy(x):
    h = np.zeros(4)
    for row in x:
        h = np.tanh(h + row)
    return h


def looped(x):
    return jax.lax.while_loop(
        lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, narrow(carry[1] * 1.5)), (0, narrow(x))
    )[1]


def scattered_in_numpy(x):
    table = np.zeros((2, 4))
    np.add.at(table, ROWS, x)
    return table


def lift(function, *arrays):
    """A program in float64 that takes bits as inputs: the program, its output, and the bits."""
    arrays = [array.astype("float64") if array.dtype.kind == "f" else array for array in arrays]
    with jax.enable_x64(True):
        float64 = make_draws_inputs(program_of(lambda key, *xs: function(*xs), *arrays), float64=True)
        return float64, np.asarray(jaxpr_as_fun(float64.jaxpr)(*arrays)[0])


def avals(jaxpr):
    """`(primitive, aval)` of every value in a jaxpr, bodies and parameters included."""
    jaxpr, _ = open_jaxpr(jaxpr)
    yield from (("input", var.aval) for var in (*jaxpr.invars, *jaxpr.constvars))
    for eqn in jaxpr.eqns:
        yield from ((eqn.primitive.name, var.aval) for var in eqn.outvars)
        for body in inner_jaxprs(eqn):
            yield from avals(body)


def narrow_values(program):
    return {
        (name, str(aval)) for name, aval in avals(program.jaxpr) if "float" in str(aval) and "float64" not in str(aval)
    }


def loop(x):
    return jax.lax.fori_loop(0, 2, lambda _, h: narrow(jnp.sin(h)), narrow(x))


def branched(x):
    return jax.lax.cond(x.sum() > 0, lambda x: narrow(jnp.sin(x)), lambda x: narrow(jnp.cos(x)), narrow(x))


def convolved(x):
    return jax.lax.conv(narrow(x)[None, None], narrow(x)[None, None], (1, 1), "VALID")


def dotted(x, **options):
    return jax.lax.dot(x.astype("float32"), x.astype("float32").T, **options)


def reduced(x):
    one = np.array(1, "bfloat16")
    return jax.lax.reduce(narrow(x), np.zeros((), "bfloat16"), lambda a, b: a * one + b, (0,))


def pooled(x):
    return jax.lax.reduce_window(narrow(x), np.array(-np.inf, "bfloat16"), jax.lax.max, (3, 1), (1, 1), "VALID")


def silu_slope(x):
    gate = 1 / (1 + np.exp(-x))
    return gate * (1 + x * (1 - gate))


NARROWED = {
    "astype": (lambda x: narrow(x) * 3 + x.astype("float16").sum(), lambda x: x * 3 + x.sum()),
    "literal": (lambda x: narrow(x) * np.float32(0.1), lambda x: x * 0.1),
    "jit": (jax.jit(lambda x: jnp.sin(narrow(x))), np.sin),
    "remat": (jax.checkpoint(lambda x: jnp.sin(narrow(x))), np.sin),
    "scan": (scanned, scanned_in_numpy),
    "while": (looped, lambda x: x * 1.5**3),
    "fori": (loop, lambda x: np.sin(np.sin(x))),
    "cond": (branched, lambda x: np.sin(x) if x.sum() > 0 else np.cos(x)),
    "scatter-add": (lambda x: jnp.zeros((2, 4), "bfloat16").at[ROWS].add(narrow(x)), scattered_in_numpy),
    "custom_vjp": (lambda x: exponential(narrow(x)), np.exp),
    "custom_vjp-grad": (jax.grad(lambda x: exponential(x).astype("float32").sum()), np.exp),
    "custom_jvp-grad": (jax.grad(lambda x: jax.nn.silu(x.astype("float32")).sum()), silu_slope),
    "dot": (lambda x: jnp.dot(narrow(x), narrow(x).T, preferred_element_type="float32"), lambda x: x @ x.T),
    "dot-precision": (lambda x: dotted(x, precision="bfloat16"), lambda x: x @ x.T),
    "dot-algorithm": (lambda x: dotted(x, precision="BF16_BF16_F32"), lambda x: x @ x.T),
    "conv": (convolved, lambda x: (x * x).sum()),
    "reduce_precision": (lambda x: jax.lax.reduce_precision(x.astype("float32"), 8, 7), lambda x: x),
    "reduce": (reduced, lambda x: x.sum(0)),
    "max-pool": (pooled, lambda x: x.max(0, keepdims=True)),
    "cumsum": (lambda x: jnp.cumsum(narrow(x), 0), lambda x: np.cumsum(x, 0)),
    "sort": (lambda x: jnp.sort(narrow(x)), np.sort),
    "iota": (lambda x: narrow(x) + jnp.arange(4, dtype="bfloat16"), lambda x: x + np.arange(4)),
    "softmax": (lambda x: jax.nn.softmax(narrow(x)), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
}
"""Code that narrows its values, and the same in float64 numpy."""


@pytest.mark.parametrize("name", NARROWED)
def test_code_in_float64_stays_float64_whatever_it_narrows_to(name):
    function, in_numpy = NARROWED[name]
    float64, output = lift(function, X)
    assert narrow_values(float64) == set()
    assert output.dtype == "float64"
    wanted = in_numpy(X.astype("float64"))
    assert np.max(np.abs(output - wanted)) < 1e-14 * max(1, np.max(np.abs(wanted)))


def test_native_rewriting_leaves_every_dtype_as_it_is():
    program = program_of(lambda key, x: scanned(x) + dropout(key, narrow(x)), X)
    assert "bfloat16[4]" in {kind for _, kind in narrow_values(make_draws_inputs(program, float64=False))}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=["4", "3x4"])
def test_a_float64_uniform_keeps_the_number_of_its_native_bits(dtype, shape):
    """`jax.random.uniform` casts bits to a float: the one place where a float64 program is narrow for one value."""
    with jax.enable_x64(True):
        program = program_of(lambda key, x: x + jax.random.uniform(key, shape, dtype), X.astype("float64"))
        float64 = make_draws_inputs(program, float64=True)
        given = draw_bits(float64.draws[0], (1, 2))
        (output,) = jaxpr_as_fun(float64.jaxpr)(X.astype("float64"), given)
        as_written = np.asarray(_uniform(given, shape, dtype).astype("float64"))
    assert {name for name, _ in narrow_values(float64)} <= {"bitcast_convert_type"}
    np.testing.assert_array_equal(np.asarray(output), X.astype("float64") + as_written)
    drawn = given.astype("float64") / 2.0 ** (8 * given.dtype.itemsize)
    assert np.max(np.abs(as_written - drawn)) <= {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10}.get(
        dtype, 2**-7
    )


def _uniform(given, shape, dtype):
    """`jax.random.uniform` of given bits, as its own code computes it."""
    program = program_of(lambda key: jax.random.uniform(key, shape, dtype))
    return jaxpr_as_fun(make_draws_inputs(program, float64=False).jaxpr)(given)[0]


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_a_float64_dropout_drops_what_the_native_one_drops(rate):
    with jax.enable_x64(True):
        wide = make_draws_inputs(program_of(lambda key, x: dropout(key, x, rate), X.astype("float64")), float64=True)
        kept = jaxpr_as_fun(wide.jaxpr)(X.astype("float64"), draw_bits(wide.draws[0], (3,)))[0]
    native = make_draws_inputs(program_of(lambda key, x: dropout(key, x, rate), X), float64=False)
    mask = jaxpr_as_fun(native.jaxpr)(X, draw_bits(native.draws[0], (3,)))[0]
    np.testing.assert_array_equal(np.asarray(kept) != 0, np.asarray(mask) != 0)
    assert (native.draws[0].bit_width, wide.draws[0].bit_width) == (32, 64)


def test_a_float64_scan_takes_its_draws_layer_by_layer():
    x = X.astype("float64")
    with jax.enable_x64(True):
        float64 = make_draws_inputs(program_of(lambda key, x: layers(key, narrow(x)), x), float64=True)
        given = draw_bits(float64.draws[0], (5,))
        output = np.asarray(jaxpr_as_fun(float64.jaxpr)(x, given)[0])
    assert given.shape == (4, 3, 4)
    keep = given < np.uint64(1) << np.uint64(63)
    h = x
    for mask in keep:
        h = np.sin(np.where(mask, h / 0.5, 0)) + x
    assert np.max(np.abs(output - h)) < 1e-14
    assert narrow_values(float64) == set()
