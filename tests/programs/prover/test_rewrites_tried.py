"""Which rewrites the search for a proof tries: few sets of them; a proof names what it needs, and no more."""

import jax.numpy as jnp
import pytest
from named import make_program, output_named
from programs.prover.rewritten import ALL, S, proof, traced, under
from soundness_programs import ALL_STEPS, random_program

from equiv.core.leaves import LeafTable
from equiv.core.output_name import ProgramName
from equiv.programs.program import Programs
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import LINEAR, REORDERED_PRODUCTS, WRITTEN_AS, drop_idle
from equiv.programs.prover.numbered_port import NumberedPort
from equiv.programs.prover.proof import Form
from equiv.programs.prover.prove import prove_programs
from equiv.programs.prover.statements import CLOSED_SUMS
from equiv.programs.prover.value_numbering import Numbering, number_program


def port(**functions):
    """A port with one call in each mode."""
    parts = []
    for mode, function in functions.items():
        own = traced(function, S, S)
        parts.append(make_program(f"{mode} __call__", own.jaxpr, ("input 0", "input 1"), ("output",)))
    return NumberedPort(Programs("some", False, tuple(parts), None, None), LeafTable("some", ()), lambda _: None)


def proved(left, right):
    """Mode to the rewrites of the proof."""
    return {output.program.kind: one.rewrites for (output, _), one in prove_programs(left, right).items()}


def tried(side, mode):
    """The sets of rewrites under which a program was numbered."""
    name = ProgramName(mode, "__call__")
    return {rules - CLOSED_SUMS for _, rules, program in side.known if rules and program == name}


def three(x, y):
    return (x * y) * x


def three_otherwise(x, y):
    return y * (x * x)


def scaled(x, y):
    return jnp.dot(3 * x, y)


def scaled_after(x, y):
    return 3 * jnp.dot(x, y)


def test_what_another_program_needed_is_tried_before_all():
    left = port(eval=three, train=lambda x, y: jnp.tanh(three(x, y)))
    right = port(eval=three_otherwise, train=lambda x, y: jnp.tanh(three_otherwise(x, y)))
    assert proved(left, right) == {"eval": (REORDERED_PRODUCTS,), "train": (REORDERED_PRODUCTS,)}
    assert ALL in tried(right, "eval")
    assert tried(right, "train") == {frozenset((REORDERED_PRODUCTS,))}


@pytest.mark.parametrize("more_first", [True, False])
def test_each_program_names_only_what_it_needs(more_first):
    more, less = ("eval", "train") if more_first else ("train", "eval")
    left = port(**dict(sorted({more: scaled, less: three}.items())))
    right = port(**dict(sorted({more: scaled_after, less: three_otherwise}.items())))
    assert proved(left, right) == {more: (REORDERED_PRODUCTS, LINEAR), less: (REORDERED_PRODUCTS,)}


@pytest.fixture
def large(monkeypatch):
    """Every program is large: derivatives wait for what is computed forwards."""
    monkeypatch.setattr("equiv.programs.prover.numbered_port.LARGE", 0)


@pytest.mark.usefixtures("large")
def test_derivatives_are_proved_where_the_call_is_not():
    """They wait until the call has been tried in every form, and are tried then."""
    left = port(eval=three, gradient=three)
    right = port(eval=lambda x, y: three(x, y) + 1, gradient=three_otherwise)
    assert proved(left, right) == {"gradient": (REORDERED_PRODUCTS,)}
    assert proved(left, port(eval=lambda x, y: three(x, y) + 1, gradient=lambda x, y: three(x, y) - 1)) == {}


@pytest.mark.usefixtures("large")
def test_derivatives_need_no_rewrite_of_the_call():
    """Without rewrites nothing waits: a proof that needs none names none."""
    left, right = port(eval=three, gradient=jnp.dot), port(eval=three_otherwise, gradient=jnp.dot)
    assert proved(left, right) == {"eval": (REORDERED_PRODUCTS,), "gradient": ()}


def test_a_wrong_program_is_not_proved_with_what_another_needed():
    left = port(eval=three, train=three)
    assert proved(left, port(eval=three_otherwise, train=lambda x, y: x * (y * y))) == {"eval": (REORDERED_PRODUCTS,)}


CANCELLED = {
    "two factors": (lambda x, y: jnp.dot(2 * x, 0.5 * y), lambda x, y: jnp.dot(x, y)),
    "two pairs of factors": (lambda x, y: jnp.dot(4 * x, 0.25 * y), lambda x, y: jnp.dot(0.5 * x, 2 * y)),
    "two signs": (lambda x, y: jnp.dot(-x, -y), lambda x, y: jnp.dot(x, y)),
}


@pytest.mark.parametrize("functions", CANCELLED.values(), ids=CANCELLED)
def test_factors_that_cancel_in_a_product_are_moved_and_named(functions):
    found = proof(*functions, S, S)
    assert found is not None
    assert set(found.rewrites) == {LINEAR, REORDERED_PRODUCTS}
    for less in found.rewrites:
        assert len({under(one, (S, S), set(found.rewrites) - {less}) for one in functions}) == 2


@pytest.mark.parametrize("seed", range(6))
def test_a_rewrite_that_cannot_be_written_changes_no_name(seed):
    """Its numbering is that without it, and is not done: of programs in which it does something otherwise."""
    program = random_program(seed, 20, ALL_STEPS)

    def names(rules):
        return [one.name for one in number_program(program, Numbering(Algebra(frozenset(rules)))).values()]

    for rule, needed in WRITTEN_AS.items():
        for others in (frozenset(), ALL - needed - {rule}):
            assert drop_idle(others | {rule}) == drop_idle(others)
            assert names(others | {rule}) == names(others)
            assert names(drop_idle(others)) == names(others)


@pytest.mark.parametrize("seed", range(4))
def test_names_need_no_rewrite_but_those_that_applied(seed):
    """The search for what a proof needs begins with them."""
    program = random_program(100 + seed, 12, ALL_STEPS)
    algebra = Algebra(ALL)
    found = number_program(program, Numbering(algebra))
    again = number_program(program, Numbering(Algebra(frozenset(algebra.applied))))
    assert {output: one.name for output, one in found.items()} == {output: one.name for output, one in again.items()}


def test_a_rewrite_that_could_be_written_is_never_left_out():
    for rule, needed in WRITTEN_AS.items():
        for other in needed:
            assert drop_idle(frozenset((rule, other))) == {rule, other}
    assert drop_idle(ALL) == ALL
    assert under(scaled, (S, S), (REORDERED_PRODUCTS,)) != under(scaled, (S, S), (REORDERED_PRODUCTS, LINEAR))


def test_one_output_is_numbered_once_where_rewrites_are_idle():
    side = port(eval=scaled)
    output = output_named("eval __call__: output")
    assert side.name(output, Form("native"), frozenset((LINEAR,)) | CLOSED_SUMS) == side.plain_name(output)
    assert {rules for _, rules, _ in side.known} == {frozenset()}
