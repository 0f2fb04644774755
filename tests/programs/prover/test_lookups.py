"""Lookups: what is known to be in range needs no rewrite, and one number more than the table has does."""

import jax
import jax.numpy as jnp
import pytest
from named import make_program

from equiv.core.grades import IN_RANGE
from equiv.core.output_name import ProgramName, batch_input, leaf_input
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.value_numbering import Numbering, number_program

CALL = ProgramName("call", "__call__")
ROWS = 10


def names(function, bound, rules=frozenset(), dtype="int32"):
    """The name of what a function of a table and of words gives, and the rewrites that applied."""
    table, words = jax.ShapeDtypeStruct((ROWS, 3), "float32"), jax.ShapeDtypeStruct((4, 2), dtype)
    jaxpr = jax.make_jaxpr(function)(table, words)
    output = make_program("call", jaxpr, ["t", "w"], ["output"]).outputs
    program = Program(CALL, jaxpr, (leaf_input("t"), batch_input("w")), output)
    algebra = Algebra(rules)
    (value,) = number_program(program, Numbering(algebra), bounds={"w": bound}).values()
    return value.name, algebra.applied


def take(mode, change=lambda words: words):
    return lambda table, words: jnp.take(table, change(words), axis=0, mode=mode, fill_value=0.0)


def indexed(table, words):
    return table[words]


def gradient(mode):
    return lambda table, words: jax.grad(lambda one: jnp.sum(take(mode)(one, words) ** 2))(table)


PAIRS = {
    "modes": (take("clip"), take("fill")),
    "from the end": (take("clip"), indexed),
    "another dtype": (take("clip"), lambda table, words: table[words.astype("uint32")]),
    "scattered": (gradient("clip"), gradient("fill")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_in_range_is_one_lookup_without_a_rewrite(name):
    (one, used), (other, too) = (names(function, ROWS) for function in PAIRS[name])
    assert one == other
    assert not used | too


@pytest.mark.parametrize("name", PAIRS)
def test_one_number_more_needs_the_rewrite(name):
    one, other = (names(function, ROWS + 1)[0] for function in PAIRS[name])
    assert one != other
    one, other = (names(function, ROWS + 1, frozenset({IN_RANGE})) for function in PAIRS[name])
    assert one == other
    assert one[1] == {IN_RANGE}


@pytest.mark.parametrize(
    "change",
    [lambda words: words + 1, lambda words: words - 1, lambda words: 2 * words, jnp.cumsum],
    ids=["one more", "one less", "twice", "sums"],
)
def test_what_is_computed_from_an_index_is_not_known(change):
    assert names(take("clip", change), 3)[0] != names(take("fill", change), 3)[0]


@pytest.mark.parametrize("size", [ROWS, ROWS + 1])
def test_positions_and_constants_are_known(size):
    for words in (lambda _: jnp.arange(size), lambda _: jnp.array([0, 3, size - 1])):
        assert (names(take("clip", words), 1)[0] == names(take("fill", words), 1)[0]) == (size == ROWS)


def test_what_a_program_says_of_its_indices_is_not_known():
    def promised(sorted_too):
        return lambda table, words: table.at[words].get(indices_are_sorted=sorted_too, mode="clip")

    assert names(promised(False), ROWS)[0] != names(promised(True), ROWS)[0]


@pytest.mark.parametrize(("start", "first"), [(0, 0), (2, 2), (ROWS - 3, ROWS - 4), (-1, ROWS - 4)])
def test_a_dynamic_slice_of_a_known_start_is_that_slice(start, first):
    """Moved into the table where it would reach beyond it; a negative one is counted from the end."""

    def cut(table, words):
        return jax.lax.dynamic_slice(table, (jnp.int32(start), jnp.int32(0)), (4, 3))

    found, applied = names(cut, 1, frozenset({IN_RANGE}))
    assert found == names(lambda table, words: table[first : first + 4], 1)[0]
    assert not applied
