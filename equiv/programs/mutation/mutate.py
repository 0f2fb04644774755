"""Mutants of programs: faults, to measure whether they are detected, and random changes, to test the prover.

Everything is deterministic: the same program, fault and seed give the same mutant.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from equiv.core.output_name import ProgramName
from equiv.errors import EquivError
from equiv.programs.jaxpr import source_line
from equiv.programs.mutation.catalogue import FAULTS, Fault
from equiv.programs.mutation.equations import EquationContext, iterate_equations
from equiv.programs.mutation.random_edits import RANDOM_FAULTS
from equiv.programs.mutation.splice import NotApplicableError, apply_edit
from equiv.programs.program import Program


@dataclass(frozen=True)
class Mutation:
    """One fault at one site.

    Attributes:
        kind: of the fault.
        site: the equation with its source line, or the input or output.
        program: the program.
    """

    kind: str
    site: str
    program: ProgramName


@dataclass(frozen=True, eq=False)
class MutationSite:
    """A site where a fault applies.

    Attributes:
        mutation: the fault and its site.
        apply: returns the mutant; raises NotApplicableError if shapes or dtypes do not match.
    """

    mutation: Mutation
    apply: Callable[[], Program]


def find_mutation_sites(
    program: Program, fault: Fault, places: Sequence[EquationContext] | None = None
) -> Iterator[MutationSite]:
    """Find every site of a program where a fault may apply, in program order.

    Args:
        program: the program.
        fault: the fault.
        places: its equations from `iterate_equations(program)`, if known already.
    """
    if fault.equation is not None:
        for context in iterate_equations(program) if places is None else places:
            for edit in fault.equation(context):
                mutation = Mutation(fault.kind, _describe_site(context), program.name)
                yield MutationSite(mutation, partial(apply_edit, program, context.path, edit))
    if fault.program is not None:
        for place, make in fault.program(program):
            yield MutationSite(Mutation(fault.kind, place, program.name), make)


def _describe_site(context: EquationContext) -> str:
    line = source_line(context.eqn)
    # Inside a function that jax.random jits there is no user's line: a module path at best.
    return f"{context.name} at {line}" if line.strip() and not line.startswith(" in ") else f"{context.name}{line}"


def generate_mutants(
    program: Program, fault: Fault, seed: int = 0, places: Sequence[EquationContext] | None = None
) -> Iterator[tuple[Mutation, Program]]:
    """Generate the mutants of a program by one fault, in an order given by the seed; skip sites that do not fit."""
    found = list(find_mutation_sites(program, fault, places))
    for index in np.random.default_rng((seed, len(found))).permutation(len(found)):
        try:
            yield found[index].mutation, found[index].apply()
        except NotApplicableError:
            continue


def mutate_randomly(
    program: Program, seed: int, faults: Sequence[Fault] = (*FAULTS, *RANDOM_FAULTS)
) -> tuple[Mutation, Program]:
    """Make one random change: a fault of the catalogue, or any other edit that type-checks.

    Raises:
        EquivError: no fault applies to the program.
    """
    places = list(iterate_equations(program))
    for index in np.random.default_rng(seed).permutation(len(faults)):
        for mutation, mutant in generate_mutants(program, faults[index], seed, places):
            return mutation, mutant
    raise EquivError(f"{program.name}: none of {len(faults)} faults applies.", fix="Pass a program with equations.")
