"""Pairs that were once proved equal though they are not: each was a wrong rule, found by random programs."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from named import by_text, make_program
from programs.prover.numbered import ALL, names

from equiv.programs import prover
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.value_numbering import Numbering, number_program


def scan_pairs(which):
    """The sum over all pairs of rows; `which` is given the outer and the inner row."""

    def outer(x):
        def turn(total, row):
            inner = lax.scan(lambda own, mine: (own + which(row, mine), None), jnp.zeros(()), x)
            return total + inner[0], None

        return lax.scan(turn, jnp.zeros(()), x)[0]

    return outer


def carried_pairs(which):
    """Two nested loops of equal length; `which` is given both carries."""

    def outer(x):
        def turn(carry, _):
            _, pairs = lax.scan(lambda own, _: (own + 1, which(carry, own)), x[0], None, length=3)
            return carry + 1, pairs

        return lax.scan(turn, x[0], None, length=3)[1]

    return outer


def stacked_rows(x):
    """Rows with each row's sine, as a loop over rows that repeats it in a loop inside."""

    def turn(_, number):
        return None, lax.scan(lambda _, __: (None, jnp.sin(number)), None, None, length=3)[1]

    return lax.scan(turn, None, x)[1]


def repeated_stack(x):
    """The same sines as columns: a loop that repeats what the loop before has stacked."""
    stack = lax.scan(lambda _, number: (None, jnp.sin(number)), None, x)[1]
    return lax.scan(lambda _, __: (None, stack), None, None, length=3)[1]


def variance(x, one, other):
    return (
        lax.broadcast_in_dim((x * x).mean(0), x.shape, (one,)) - lax.broadcast_in_dim(x.mean(0), x.shape, (other,)) ** 2
    )


DIFFERENT = {
    "root of a square": (lambda x: jnp.sqrt(x * x), lambda x: x),
    "inverse root of a square": (lambda x: lax.rsqrt(x * x), lambda x: 1 / x),
    "roots of negative factors": (
        lambda x: jnp.sqrt(x * x[::-1]) * jnp.sqrt(x * x.T),
        lambda x: x * jnp.sqrt(x[::-1] * x.T),
    ),
    "centred along the other axis": (
        lambda x: jnp.square(x - x.mean(0)[:, None]).sum(0),
        lambda x: jnp.square(x - x.mean(0)[None]).sum(0),
    ),
    "not a variance": (lambda x: jnp.maximum(variance(x, 0, 1), 0), lambda x: variance(x, 0, 1)),
    "turned before a reshape": (
        lambda x: x.T.reshape(9).reshape(3, 3).T.reshape(9).reshape(3, 3),
        lambda x: x.T.reshape(9).reshape(3, 3),
    ),
    "a small summand": (lambda x: 1e15 * x + x.T, lambda x: 1e15 * x),
    "rows of both loops": (
        lambda x: scan_pairs(lax.mul)(x[0]),
        lambda x: scan_pairs(lambda one, other: other * other)(x[0]),
    ),
    "carries of both loops": (
        lambda x: carried_pairs(lax.mul)(x[0]),
        lambda x: carried_pairs(lambda one, other: other * other)(x[0]),
    ),
    "stacks of both loops": (lambda x: stacked_rows(x[0]), lambda x: repeated_stack(x[0])),
    "a row that is repeated": (lambda x: jnp.stack([x[0], x[0], x[1]])[1], lambda x: x[1]),
    "whole numbers divided": (
        lambda x: x * lax.convert_element_type(lax.div(jnp.int32(7), jnp.int32(2)), x.dtype),
        lambda x: x * 3.5,
    ),
}


def name(function, rules) -> str:
    """The name of a function's result on a 3 x 3 input."""
    program = make_program("pair", jax.make_jaxpr(function)(jnp.ones((3, 3))), ("x",), ("output",))
    return by_text(number_program(program, Numbering(Algebra(rules))))["output"].name


@pytest.mark.parametrize("rules", [frozenset(), frozenset(CONDITIONS)], ids=["no_rewrites", "all_rewrites"])
@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=[key.replace(" ", "_") for key in DIFFERENT])
def test_what_once_was_proved_wrongly_is_proved_no_more(pair, rules) -> None:
    """Their names differ, with and without rewrites."""
    assert name(pair[0], rules) != name(pair[1], rules)


def test_the_readme_says_what_prevents_each() -> None:
    """Its table has these pairs, and the code that it names exists."""
    folder = Path(str(prover.__file__)).parent
    table = re.findall(
        r"^\| ([a-z ]+) \| .* \| `(?:\w+\.)?(\w+)` \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert [pair for pair, _ in table] == list(DIFFERENT)
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [place for _, place in table if f"def {place}(" not in code] == []


def scattered(body):
    """A `scatter-add` that combines with this function; jax itself makes none but `add`."""

    def run(x, rows):
        added = jax.make_jaxpr(lambda x, rows: x.at[jnp.arange(3)].add(rows))(x, rows)
        (eqn,) = [eqn for eqn in added.eqns if eqn.primitive.name == "scatter-add"]
        other = jax.make_jaxpr(body)(jnp.float32(0), jnp.float32(0)).jaxpr
        index = jnp.arange(3)[:, None]
        return eqn.primitive.bind(x, index, rows, **{**eqn.params, "update_jaxpr": other})

    return run


@pytest.mark.parametrize("body", [lambda a, b: a - b, lambda a, b: a + a, lambda a, b: a + 2 * b])
def test_a_scatter_does_what_its_body_says(body):
    """A mutant of a body was given the name of the sum."""
    plain, wrong = (names(scattered(one), (3, 3), (3, 3), rules=ALL) for one in (jnp.add, body))
    assert plain == names(lambda x, rows: x + rows, (3, 3), (3, 3), rules=ALL)
    assert wrong != plain
