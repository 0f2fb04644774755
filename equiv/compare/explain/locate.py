"""Locate."""

from dataclasses import replace

from equiv.core.results import CheckResult
from equiv.programs.prover.first_difference import first_difference
from equiv.programs.prover.prove import every
from equiv.programs.traced_port import Traced
from equiv.programs.transform import select


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
