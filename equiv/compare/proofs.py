"""Traced ports to proofs: what is equal for every input, and what numbers have to decide."""

from collections.abc import Mapping

import numpy as np

from equiv.core.leaves import LeafTable
from equiv.errors import EquivError
from equiv.programs.probes import Arrays
from equiv.programs.program import Program, Programs
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.prove import Side, prove
from equiv.programs.traced_port import Traced, lift_program


def prove_all(reference: Traced, candidates: Mapping[str, Traced]) -> dict[str, Proofs]:
    """Candidate to its proofs against the reference."""
    left = side_of(reference)
    return {
        name: prove(left, side_of(traced), start_alike(reference.fresh, traced.fresh))
        for name, traced in candidates.items()
    }


def side_of(traced: Traced) -> Side:
    """A port as the prover takes it."""

    def lift(program: str) -> Program | None:
        try:
            return lift_program(traced, program)
        except EquivError:
            return None  # the float64 run says why

    return Side(traced.programs, traced.table, lift)


def start_alike(ours: Arrays, theirs: Arrays) -> frozenset[str]:
    """State leaves that both libraries initialise with the same value."""
    return frozenset(name for name in ours if name in theirs and np.array_equal(ours[name], theirs[name]))


def needed_in_float64(table: LeafTable, programs: Programs, proofs: Mapping[str, Proofs]) -> dict[str, frozenset[str]]:
    """Candidate to the programs that hold an output without proof: those are run in float64 too.

    Args:
        table: the reference's leaf table.
        programs: the reference's programs, of which only names are asked.
        proofs: candidate to its proofs.
    """
    return {name: frozenset(_unproved(table, programs, found)) for name, found in proofs.items()}


def _unproved(table: LeafTable, programs: Programs, proofs: Proofs) -> set[str]:
    constants = {leaf.name for leaf in table.leaves if leaf.constant is not None}
    proved = {(place, cold) for place, _, cold in proofs}
    stateful = bool(table.names("state"))
    names: set[str] = set()
    for part in programs.parts:
        for output in part.outputs:
            place = f"{part.name}: {output}"
            if output.removeprefix("state ") in constants:
                continue
            if (place, False) not in proved:
                names.add(part.name)
            later = stateful and part.name.startswith(("eval ", "call "))
            if later and {(f"after training, {place}", cold) for cold in (False, True)} - proved:
                names |= {part.name, "step"}
    for output in programs.step.outputs if programs.step else ():
        if output not in constants and {(f"train: {output}", cold) for cold in (False, stateful)} - proved:
            names.add("step")
    return names
