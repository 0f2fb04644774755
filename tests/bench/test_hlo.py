"""Optimised programs: counted, and found equal but for names and order. Each pair is compiled for real."""

import jax
import jax.numpy as jnp
import pytest

from equiv.bench.hlo import instructions, parse_hlo
from equiv.bench.hlo_diff import difference

MATRIX, ROW = jnp.ones((8, 8)), jnp.ones((8,))


def text(function, *arguments) -> str:
    """The optimised program of a function."""
    return jax.jit(function).lower(*arguments).compile().as_text()


def dense(kernel, bias, x):
    return jnp.tanh(x @ kernel + bias)


def loop(body, x, *carried):
    return jax.lax.fori_loop(0, 7, lambda _, carry: body(*carry), (x, *carried))


def branches(x, first, second):
    return jax.lax.cond(x.sum() > 0, first, second, x)


SAME = {
    "the same function again": (
        (lambda k, b, x: dense(k, b, x), MATRIX, ROW, ROW),
        (lambda k, b, x: dense(k, b, x), MATRIX, ROW, ROW),
    ),
    "parameters in another order": (
        (lambda k, b, x: dense(k, b, x), MATRIX, ROW, ROW),
        (lambda x, k, b: dense(k, b, x), ROW, MATRIX, ROW),
    ),
    "outputs in another order": (
        (lambda x: (jnp.sin(x), jnp.exp(x)), ROW),
        (lambda x: (jnp.exp(x), jnp.sin(x)), ROW),
    ),
    "a parameter that is not used": (
        (lambda x: jnp.sin(x), ROW),
        (lambda unused, x: jnp.sin(x), MATRIX, ROW),
    ),
    "unit axes of a parameter": (
        (lambda scale, x: x * scale, ROW, MATRIX),
        (lambda scale, x: x * scale.reshape(8), ROW[None], MATRIX),
    ),
    "summands swapped": (
        (lambda x, y: jnp.sin(x) + jnp.exp(y), ROW, ROW),
        (lambda x, y: jnp.exp(y) + jnp.sin(x), ROW, ROW),
    ),
    "loop variables in another order": (
        (lambda x, y: loop(lambda a, b: (jnp.sin(a) + b.sum(), b * 2), x, y), ROW, MATRIX),
        (lambda x, y: loop(lambda b, a: (b * 2, jnp.sin(a) + b.sum()), y, x)[::-1], ROW, MATRIX),
    ),
    "another name": (
        (jax.named_call(lambda x: jnp.sin(x), name="a{,)b"), ROW),
        (lambda x: jnp.sin(x), ROW),
    ),
}

OTHER = {
    "one more operation": ((lambda x: jnp.sin(x), ROW), (lambda x: jnp.exp(jnp.sin(x)), ROW), "exponential +1"),
    "one operation for another": ((lambda x: jnp.sin(x), ROW), (lambda x: jnp.cos(x), ROW), "cosine +1"),
    "another constant": (
        (lambda x: x * 2.5, ROW),
        (lambda x: x * 2.25, ROW),
        "the same operations, connected differently",
    ),
    "another shape": ((lambda x: x + 1, ROW), (lambda x: x + 1, MATRIX), "the same operations, connected differently"),
    "operands the other way round": (
        (lambda x, y: x - y.sum(), ROW, MATRIX),
        (lambda x, y: y.sum() - x, ROW, MATRIX),
        "the same operations, connected differently",
    ),
    "another of two alike parameters": (
        (lambda x, y: (jnp.sin(x), jnp.exp(x), jnp.cos(y)), ROW, ROW),
        (lambda x, y: (jnp.sin(x), jnp.exp(y), jnp.cos(y)), ROW, ROW),
        "the same operations, connected differently",
    ),
    "another reduction": ((lambda x: x.sum(0), MATRIX), (lambda x: x.max(0), MATRIX), ""),
    "a copy handed through": (
        (lambda k, x: x @ k, MATRIX, ROW),
        (lambda k, x: (x @ k, k), MATRIX, ROW),
        "copy +1, output +1",
    ),
    "more in a loop": (
        (lambda x: loop(lambda a: (jnp.sin(a),), x), ROW),
        (lambda x: loop(lambda a: (jnp.sin(jnp.sin(a)),), x), ROW),
        "sine +1",
    ),
    "more turns of a loop": (
        (lambda x: jax.lax.fori_loop(0, 7, lambda _, a: jnp.sin(a), x), ROW),
        (lambda x: jax.lax.fori_loop(0, 9, lambda _, a: jnp.sin(a), x), ROW),
        "the same operations, connected differently",
    ),
    "another branch": (
        (lambda x: branches(x, jnp.sin, jnp.cos), MATRIX),
        (lambda x: branches(x, jnp.sin, jnp.exp), MATRIX),
        "",
    ),
    "another order of sorting": (
        (lambda x: jax.lax.sort((x, -x), num_keys=1), ROW),
        (lambda x: jax.lax.sort((x, -x), num_keys=2), ROW),
        "",
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_programs_that_differ_in_names_and_order_are_the_same(kind: str) -> None:
    """Any gap between two such is the host's."""
    one, other = (text(*side) for side in SAME[kind])
    assert difference(one, other) == ""
    assert difference(other, one) == ""


@pytest.mark.parametrize("kind", OTHER)
def test_a_program_that_does_something_else_says_what_is_more(kind: str) -> None:
    """Each is a change of one place."""
    *sides, more = OTHER[kind]
    one, other = (text(*side) for side in sides)
    assert more in difference(one, other)
    assert difference(one, other)
    assert difference(other, one)


def test_every_instruction_is_counted_once_and_parameters_are_not() -> None:
    """Those of fusions and loop bodies too."""
    assert instructions(text(lambda x, y: x + y, ROW, ROW)) == 2  # the fusion and the sum in it
    program = text(lambda x: loop(lambda a: (jnp.sin(a),), x), ROW)
    lines = [line for line in program.splitlines() if line.startswith("  ") and " = " in line]
    assert instructions(program) == sum(" parameter(" not in line for line in lines) > 10


TYPED = """HloModule jit_f, entry_computation_layout={(f32[2]{0}, f32[2]{0})->f32[2]{0}}

ENTRY main {
  a = f32[2]{0} parameter(0), metadata={op_name="quoted \\" } ) , brackets"}
  b = f32[2]{0} parameter(1)
  c = f32[2]{0} constant({1, 2})
  /*a comment*/
  s = f32[2]{0:T(256)} subtract(f32[2]{0} a, f32[2]{0} b), metadata={op_name="x"}
  ROOT r = (f32[2]{0}, /*index=1*/f32[2]{0}) tuple(f32[2]{0} s, f32[2]{0} c)
}
"""


def test_operands_may_have_types_and_quoted_names() -> None:
    """As other platforms and older releases print it."""
    (items,) = parse_hlo(TYPED).computations.values()
    assert [item.opcode for item in items] == ["parameter", "parameter", "constant", "subtract", "tuple"]
    assert items[3].operands == ("a", "b")
    assert items[4].operands == ("s", "c")
    assert items[4].root
    assert (
        difference(TYPED, TYPED.replace("a, f32[2]{0} b", "b, f32[2]{0} a")) == ""
    )  # two parameters of one type swapped
    assert difference(TYPED, TYPED.replace("{1, 2}", "{1, 3}")) != ""


def test_a_constant_not_printed_whole_is_equal_to_no_other() -> None:
    """It may be any."""
    elided = TYPED.replace("{1, 2}", "{...}")
    assert difference(elided, elided) == "the same operations, connected differently"
