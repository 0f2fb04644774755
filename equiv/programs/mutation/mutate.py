"""Faults planted in programs, to see whether they would be noticed, and random changes, to try the prover.

Everything is deterministic: the same program, fault and seed give the same mutant.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from equiv.errors import EquivError
from equiv.programs.jaxpr import where
from equiv.programs.mutation.catalogue import FAULTS, Fault
from equiv.programs.mutation.equations import Spot, spots
from equiv.programs.mutation.random_edits import GENERIC
from equiv.programs.mutation.splice import NotApplicableError, rewritten
from equiv.programs.program import Program


@dataclass(frozen=True)
class Mutation:
    """One fault in one place.

    Attributes:
        kind: of the fault.
        site: the equation with its source line, or the input or output.
        program: name of the program.
    """

    kind: str
    site: str
    program: str


@dataclass(frozen=True, eq=False)
class Site:
    """Where a fault fits.

    Attributes:
        mutation: what and where.
        apply: gives the program with the fault; raises NotApplicableError where it does not fit after all.
    """

    mutation: Mutation
    apply: Callable[[], Program]


def sites(program: Program, fault: Fault, places: Sequence[Spot] | None = None) -> Iterator[Site]:
    """Every place of a program where a fault may fit, in program order.

    Args:
        program: the program.
        fault: the fault.
        places: its equations as `spots(program)` gives them, where they are known already.
    """
    if fault.equation is not None:
        for spot in spots(program) if places is None else places:
            for edit in fault.equation(spot):
                mutation = Mutation(fault.kind, _place(spot), program.name)
                yield Site(mutation, partial(rewritten, program, spot.path, edit))
    if fault.program is not None:
        for place, make in fault.program(program):
            yield Site(Mutation(fault.kind, place, program.name), make)


def _place(spot: Spot) -> str:
    line = where(spot.eqn)
    # What jax.random compiles for itself has no line of the user's: a module path at best.
    return f"{spot.name} at {line}" if line.strip() and not line.startswith(" in ") else f"{spot.name}{line}"


def applied(
    program: Program, fault: Fault, seed: int = 0, places: Sequence[Spot] | None = None
) -> Iterator[tuple[Mutation, Program]]:
    """The mutants of a program by one fault, in an order that the seed decides; what does not fit is left out."""
    found = list(sites(program, fault, places))
    for index in np.random.default_rng((seed, len(found))).permutation(len(found)):
        try:
            yield found[index].mutation, found[index].apply()
        except NotApplicableError:
            continue


def random_mutation(
    program: Program, seed: int, faults: Sequence[Fault] = (*FAULTS, *GENERIC)
) -> tuple[Mutation, Program]:
    """One random change that fits: a fault of the catalogue, or anything else that type-checks.

    Raises:
        EquivError: the program has no place for any of the faults.
    """
    places = list(spots(program))
    for index in np.random.default_rng(seed).permutation(len(faults)):
        for mutation, mutant in applied(program, faults[index], seed, places):
            return mutation, mutant
    raise EquivError(f"{program.name}: no place for any of {len(faults)} faults. Give a program with equations.")
