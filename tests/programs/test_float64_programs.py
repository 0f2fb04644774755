"""Programs in float64: nothing in them is narrower, and they draw what the native ones draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from programs.random_functions import X, avals, dropout, layers, program_of

from equiv.programs.draws import draw_bits
from equiv.programs.transform import make_draws_inputs

ROWS = np.array([0, 1, 0])


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
    assert given.shape == (5, 3, 4)
    keep = given < np.uint64(1) << np.uint64(63)
    h = x
    for mask in keep:
        h = np.sin(np.where(mask, h / 0.5, 0)) + x
    assert np.max(np.abs(output - h)) < 1e-14
    assert narrow_values(float64) == set()
