"""Programs with float32's range: the same numbers as their own where nothing leaves the range, and what leaves it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.programs.program import Program
from equiv.programs.range_limits import float_range, narrow_ranges, observe_ranges, range_sites

X = np.random.default_rng(0).normal(1, 1, (4, 6)).astype("float16")

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: jnp.tanh(x * 3) / (1 + x * x),
    "constants": lambda x: x + jnp.arange(6, dtype=x.dtype) + np.arange(6, dtype="float16"),
    "moves": lambda x: jnp.concatenate([jnp.sort(x, -1)[:, ::-1], x.T.reshape(4, 6)], -1)[:, 2:5],
    "gather and scatter": lambda x: jnp.zeros((3, 6), x.dtype).at[jnp.array([0, 2, 0, 1])].add(x)[jnp.array([1, 0])],
    "casts": lambda x: (x.astype(jnp.float32) * 2).astype(x.dtype).astype(jnp.bfloat16).astype(x.dtype),
    "whole numbers": lambda x: jnp.floor(x).astype(jnp.int32) + (x > 1).astype(x.dtype).astype(jnp.int32),
    "bits": lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint16) | np.uint16(1), jnp.float16),
    "product": lambda x: lax.dot(x, x.T, preferred_element_type=jnp.float32).astype(x.dtype),
    "a loop": lambda x: lax.scan(lambda c, r: (c * 0.5 + r, jnp.max(c)), jnp.zeros(6, x.dtype), x),
    "a loop with a test": lambda x: lax.while_loop(lambda c: jnp.sum(c) < 99, lambda c: c * 2, jnp.abs(x)),
    "a branch": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, lambda y: y, x),
    "a reduction of one's own": lambda x: lax.reduce(x, np.float16(-1), lambda a, b: lax.max(a, b), (1,)),
    "precision": lambda x: lax.reduce_precision(x, exponent_bits=4, mantissa_bits=6),
}


def program(function: Callable[[Any], Any], x: Any = X) -> Program:
    closed = jax.make_jaxpr(function)(x)
    name = ProgramName("call", "f")
    outputs = tuple(OutputName(name, "output", str(number)) for number in range(len(closed.out_avals)))
    return Program(name, closed, (InputName("batch", "x"),), outputs)


@pytest.mark.quick(7)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inside_of_the_range_both_forms_are_equal(name: str) -> None:
    """Bit for bit: they round alike."""
    part = program(FUNCTIONS[name])
    outs, _ = observe_ranges(part.jaxpr, [X])
    for own, wide in zip(jaxpr_as_fun(part.jaxpr)(X), outs, strict=True):
        assert np.array_equal(np.asarray(own, "float64"), np.asarray(wide, "float64"))


def test_what_overflows_is_seen_with_its_size() -> None:
    part = program(lambda x: jnp.sqrt(x * x))
    outs, found = observe_ranges(part.jaxpr, [np.full((4, 6), 1000, "float16")])
    assert np.all(np.isinf(jaxpr_as_fun(part.jaxpr)(np.full((4, 6), 1000, "float16"))[0]))
    assert np.all(np.asarray(outs[0]) == 1000)
    square, root = ((site, *map(float, seen)) for site, seen in found)
    assert (square[0].primitive, square[1]) == ("mul", 999936), "a million with the digits of float16"
    assert square[0].is_left(*square[1:])
    assert not root[0].is_left(*root[1:])
    assert {site for site, _ in found} == range_sites(part)


def test_what_overflows_inside_of_a_loop_is_seen() -> None:
    part = program(lambda x: lax.scan(lambda c, r: (c, jnp.sqrt(r * r)), 0, x)[1])
    _, found = observe_ranges(part.jaxpr, [np.full((4, 6), 1000, "float16")])
    assert [(site.primitive, site.is_left(*map(float, seen))) for site, seen in found] == [
        ("mul", True),
        ("sqrt", False),
    ]


@pytest.mark.parametrize(
    ("dtype", "narrow"),
    [("float16", True), ("float8_e4m3fn", True), ("float8_e5m2", True), ("bfloat16", False), ("float32", False)],
)
def test_a_range_is_narrow_if_float32_has_more(dtype: str, narrow: bool) -> None:
    part = program(lambda x: x.astype(dtype).astype(jnp.float32), X.astype("float32"))
    assert narrow_ranges(part) == ({float_range(dtype)} if narrow else set())
