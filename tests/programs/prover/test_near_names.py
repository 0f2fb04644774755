"""Pairs of programs that differ for some values or objects only: each pair once had one name, and has two."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.extend.random import define_prng_impl
from programs.prover.numbered import ALL, names

ROW, ROWS, COMPLEX = (3,), (300,), ((3,), "complex64")


def counted(dtype):
    """Positions in a dtype that may be too narrow for them."""
    return lax.iota(dtype, ROWS[0])


def foreign(name, parameter):
    """A user's own primitive with a name of jax's: it multiplies by a number, whatever jaxpr it is given."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda value, **_: [jax.core.ShapedArray(value.shape, value.dtype)])
    inner = jax.make_jaxpr(jnp.tanh)(np.zeros(ROW, "float32"))
    return lambda x, number: primitive.bind(x, **{parameter: inner}, number=number)[0]


def constant_keys(bits):
    """A user's own generator, which gives one number only, under a tag that others have too."""
    own = define_prng_impl(
        key_shape=(2,),
        seed=lambda _: jnp.zeros(2, "uint32"),
        split=lambda key, shape: jnp.broadcast_to(key, (*shape, 2)),
        random_bits=lambda _, __, shape: jnp.full(shape, bits, "uint32"),
        fold_in=lambda key, _: key,
        name="own",
        tag="own",
    )
    key = jax.random.wrap_key_data(np.zeros(2, "uint32"), impl=own)
    return lambda x: x + jax.random.bits(key, ROW).astype("float32")


def masked(x, kept, number=-np.inf):
    """Logits with a number added where a mask says no."""
    return x + jnp.where(kept > 0, 0, np.float32(number))


def long_sum(x, last, add=jnp.add):
    """A sum of many terms, and a last one."""
    for number in range(12):
        x = add(x, jnp.sin(number * x))
    return add(x, last)


def foreign_sum(x, number):
    """A long chain of a user's own `add`, which does something else."""
    primitive = Primitive("add")
    primitive.def_abstract_eval(lambda x, y, **_: jax.core.ShapedArray(x.shape, x.dtype))
    return long_sum(x, x, lambda x, y: primitive.bind(x, y, number=number))


REWRITTEN = {
    "what is made of an infinite sum": (
        lambda x, y: jnp.tanh(long_sum(x, -np.inf)),
        lambda x, y: jnp.exp(long_sum(x, -np.inf)),
    ),
    "parts of an infinite sum": (
        lambda x, y: long_sum(x, -np.inf)[:1] * y[:1],
        lambda x, y: y[:1] + long_sum(x, -np.inf)[1:2],
    ),
    "a long sum by a user's addition": (lambda x, y: foreign_sum(x, 2), lambda x, y: foreign_sum(x, 3)),
    "a mask of minus infinity": (lambda x, y: masked(x, y), lambda x, y: x),
    "two masks of minus infinity": (
        lambda x, y: jax.nn.softmax(masked(x, y) / 2),
        lambda x, y: jax.nn.softmax(masked(x, x) / 2),
    ),
    "a mask times minus infinity": (
        lambda x, y: masked(x, y),
        lambda x, y: x + (y <= 0).astype("float32") * -np.inf,
    ),
    "the sign of an exponential that can underflow": (
        lambda x, y: jnp.sign(jnp.exp(x - 1e9 * y)),
        lambda x, y: jnp.ones_like(x),
    ),
    "logits beside a mask": (lambda x, y: jnp.exp(masked(x, y) * x), lambda x, y: jnp.exp(masked(2 * x, y) * x)),
    "logits beside a large mask": (
        lambda x, y: jnp.exp(masked(x, y, -3e38) * x),
        lambda x, y: jnp.exp(masked(2 * x, y, -3e38) * x),
    ),
}


@pytest.mark.parametrize("pair", REWRITTEN.values(), ids=REWRITTEN)
def test_what_no_rewrite_speaks_of_has_two_names(pair):
    one, other = pair
    assert names(one, ROW, ROW, rules=ALL) != names(other, ROW, ROW, rules=ALL)


@dataclass(frozen=True)
class Amount(float):
    """A frozen dataclass that is more than its fields."""

    unit: str = "m"

    def __new__(cls, amount):
        return super().__new__(cls, amount)

    def __init__(self, amount):
        pass


@dataclass(frozen=True)
class Times:
    """A host function that multiplies by an amount."""

    amount: Amount

    def __call__(self, x):
        return np.asarray(x) * np.float32(self.amount)


def called(amount):
    """A call of a host function."""
    return lambda x: jax.pure_callback(Times(amount), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


OWN_CALL, OWN_SCAN = foreign("jit", "jaxpr"), foreign("scan", "jaxpr")

DIFFERENT = {
    "lookups beyond a narrow dtype": (
        lambda x: jnp.take(x, counted("int8"), mode="clip"),
        lambda x: jnp.take(x, counted("int8"), mode="fill", fill_value=-1),
        ROWS,
    ),
    "negative positions in two dtypes": (
        lambda x: x.at[counted("int8").astype("int32")].get(mode="clip"),
        lambda x: x.at[counted("int8").astype("uint32")].get(mode="clip"),
        ROWS,
    ),
    "an unsigned index for a negative one": (
        lambda x: lax.dynamic_slice(x, (np.uint32(2**32 - 3),), (2,)),
        lambda x: lax.dynamic_slice(x, (np.uint32(2),), (2,)),
        ROW,
    ),
    "complex square": (lax.square, lambda x: x * x, COMPLEX),
    "complex power": (lax.square, lambda x: lax.integer_pow(x, 2), COMPLEX),
    "complex one": (lambda x: x * np.complex64(1), lambda x: x, COMPLEX),
    "the size of a complex exponential": (
        jnp.exp,
        lambda x: lax.convert_element_type(jnp.abs(jnp.exp(x)), "complex64"),
        COMPLEX,
    ),
    "the size of a sum of complex exponentials": (
        lambda x: jnp.exp(x).sum(),
        lambda x: lax.convert_element_type(jnp.abs(jnp.exp(x).sum()), "complex64"),
        COMPLEX,
    ),
    "a draw with hidden state": (
        lambda x: lax.rng_uniform(0.0, 1.0, ROW) - lax.rng_uniform(0.0, 1.0, ROW),
        lambda x: lax.rng_uniform(0.0, 1.0, ROW) * 0,
        ROW,
    ),
    "a user's call": (lambda x: OWN_CALL(x, 2), lambda x: OWN_CALL(x, 3), ROW),
    "a user's call and jax's": (lambda x: OWN_CALL(x, 2), lambda x: jax.jit(jnp.tanh)(x), ROW),
    "a user's loop": (lambda x: OWN_SCAN(x, 2), lambda x: OWN_SCAN(x, 3), ROW),
    "dataclasses that are numbers": (called(Amount(2.0)), called(Amount(3.0)), ROW),
    "generators of one tag": (constant_keys(1), constant_keys(2), ROW),
}


@pytest.mark.parametrize("key", DIFFERENT)
def test_what_differs_somewhere_has_two_names(key):
    one, other, *inputs = DIFFERENT[key]
    assert names(one, *inputs) != names(other, *inputs)


def test_a_number_beyond_a_narrow_dtype_is_no_error():
    assert names(lambda x: x * jax.jit(lambda number: number.astype("float16"))(70000), (ROW, "float16"))


def test_positions_that_a_dtype_has_are_in_range():
    pair = (lambda x, mode=mode: jnp.take(x, lax.iota("int8", 100), mode=mode) for mode in ("clip", "fill"))
    assert len({tuple(names(one, ROWS)) for one in pair}) == 1


def test_one_generator_draws_alike():
    draw = constant_keys(1)
    assert names(draw, ROW) == names(draw, ROW)
