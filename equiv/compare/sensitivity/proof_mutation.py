"""Would a proof notice? Every proved program is changed at one equation, which must break its proof."""

from collections.abc import Mapping

from equiv.core.results import Finding
from equiv.errors import EquivError
from equiv.programs.mutation.mutate import random_mutation
from equiv.programs.program import Program
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.prove import every
from equiv.programs.prover.value_numbering import number_program
from equiv.programs.traced_port import Traced

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
