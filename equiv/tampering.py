"""Would a proof notice? Every proved program is changed at one equation, which must break its proof."""

from collections.abc import Mapping

from equiv.errors import EquivError
from equiv.evidence.mutate import random_mutation
from equiv.evidence.number import number_program
from equiv.evidence.prove import every
from equiv.observed import Proofs
from equiv.program import Program
from equiv.results import Finding
from equiv.traced import Traced

TRIES = 5
"""Changes tried: one in a few changes nothing that is proved, such as a factor of one."""


def tampered(candidates: Mapping[str, Traced], proofs: Mapping[str, Proofs]) -> tuple[Finding, ...]:
    """For every candidate and program with a proof: whether a changed equation breaks it."""
    return tuple(
        _tamper(name, part, outputs)
        for name, traced in candidates.items()
        for part in every(traced.programs)
        if (outputs := _proved(part, proofs[name]))
    )


def _proved(part: Program, proofs: Proofs) -> list[str]:
    program = "train" if part.name == "step" else part.name
    places = {other for _, other, cold in proofs if not cold}
    return [output for output in part.outputs if f"{program}: {output}" in places]


def _tamper(name: str, part: Program, outputs: list[str]) -> Finding:
    place = f"tampering with {name}, {part.name}"
    before = number_program(part)
    for seed in range(TRIES):
        try:
            mutation, mutant = random_mutation(part, seed)
        except EquivError as error:
            return Finding(place, "unidentifiable", note=str(error))
        after = number_program(mutant)
        if any(before[output].name != after[output].name for output in outputs):
            return Finding(place, "exact", note=f"{mutation.kind}: {mutation.site}")
    return Finding(place, "unidentifiable", note=f"none of {TRIES} changed equations broke the proof")
