"""Traced ports to proofs: what is equal for every input, and what numbers have to decide."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from equiv.errors import EquivError
from equiv.evidence.locate import first_difference
from equiv.evidence.prove import Side, every, prove
from equiv.evidence.rewrite import select
from equiv.observed import Proofs
from equiv.probe import Arrays
from equiv.program import Program, Programs
from equiv.results import CheckResult
from equiv.traced import Traced, lift_program
from equiv.variables import LeafTable


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


def located(checks: list[CheckResult], reference: Traced, candidate: Traced) -> list[CheckResult]:
    """The same checks, with the first different equations of both ports beside every place without proof.

    Of a program's places each of the first few is looked at by itself, without the equations that it does not depend
    on; the rest take what is said of the program.
    """
    known: dict[tuple[str, str], str] = {}

    def difference_of(place: str) -> str:
        program, _, output = place.removeprefix("after training, ").partition(": ")
        program = "step" if program == "train" else program
        looked = sum(key[0] == program for key in known)
        key = (program, output) if looked < LOOKED_AT or (program, output) in known else (program, "")
        if key not in known:
            known[key] = _difference(*key, reference, candidate)
        return known[key]

    results = []
    for check in checks:
        findings = [
            replace(item, source=difference_of(item.place)) if item.grade in UNPROVED else item
            for item in check.findings
        ]
        results.append(replace(check, findings=tuple(findings)))
    return results


LOOKED_AT = 8
"""Places of one program whose own first difference is looked for."""

UNPROVED = ("refuted", "float64", "rounding")


def _difference(program: str, output: str, reference: Traced, candidate: Traced) -> str:
    """What first differs in a program, or in what one output of it depends on."""
    parts = [
        next((part for part in every(side.programs) if part.name == program), None) for side in (reference, candidate)
    ]
    if parts[0] is None or parts[1] is None:
        return ""
    pair = [select(part, (output,)) if output in part.outputs else part for part in parts if part is not None]
    aliases = {leaf.name: leaf.copies for leaf in reference.table.leaves if leaf.copies}
    names = reference.port.backend, candidate.port.backend
    return first_difference(pair[0], pair[1], aliases, names)
