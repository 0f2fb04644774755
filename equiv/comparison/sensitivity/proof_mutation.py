"""Proof mutation: change one equation of every proved program, which must break its proof."""

from collections.abc import Mapping

from equiv.comparison.proofs import ProverSide
from equiv.core.output_name import STEP, TRAINING, OutputName
from equiv.core.results import ProbeTrial
from equiv.errors import EquivError
from equiv.programs.mutation.mutate import mutate_randomly
from equiv.programs.program import Program
from equiv.programs.prover.numbered_port import NumberedPort, all_programs, mirrored_inputs
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.value_numbering import number_program

MAX_MUTATIONS = 5
"""Most mutations tried for a program: some change nothing that is proved, such as a factor of one."""


def mutate_proofs(candidates: Mapping[str, ProverSide], proofs: Mapping[str, Proofs]) -> tuple[ProbeTrial, ...]:
    """Mutate every proved program of every candidate, and record whether its proof breaks."""
    return tuple(
        _mutate_proof(side.numbered, part, outputs)
        for name, side in candidates.items()
        for part in all_programs(side.numbered.programs)
        if (outputs := _proved_outputs(part, proofs[name]))
    )


def _proved_outputs(part: Program, proofs: Proofs) -> list[OutputName]:
    proved = {other for _, other, cold in proofs if not cold}
    return [output for output in part.outputs if (output.of(TRAINING) if part.name == STEP else output) in proved]


def _mutate_proof(port: NumberedPort, part: Program, outputs: list[OutputName]) -> ProbeTrial:
    kind, subject = "mutated proof", (port.programs.port, str(part.name))
    before = {output: port.plain_name(output) for output in outputs}
    for seed in range(MAX_MUTATIONS):
        try:
            mutation, mutant = mutate_randomly(part, seed)
        except EquivError as error:
            return ProbeTrial(kind, subject, detected=False, note=str(error))
        after = number_program(mutant, aliases=mirrored_inputs(port.table), bounds=port.bounds)
        if any(before[output] != after[output].name for output in outputs):
            return ProbeTrial(kind, subject, note=f"{mutation.kind}: {mutation.site}")
    note = f"none of {MAX_MUTATIONS} changed equations broke the proof"
    return ProbeTrial(kind, subject, detected=False, note=note)
