"""Prove outputs of traced ports equal for every input, and list the programs that need numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from equiv.compat import enable_x64
from equiv.core.grades import INPUT_CONDITIONS
from equiv.core.leaves import LeafTable
from equiv.core.output_name import BEGIN, STEP, TRAINING, OutputName, ProgramName
from equiv.errors import EquivError
from equiv.programs.keep_casts import keep_casts, leave_casts_out
from equiv.programs.probes import NamedArrays
from equiv.programs.program import Program, Programs
from equiv.programs.prover.numbered_port import NumberedPort, all_programs
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.prove import prove
from equiv.programs.traced_port import TracedPort, trace_program_float64


@dataclass(frozen=True)
class ProverSide:
    """What candidates are proved against: the programs of a port, numbered, and its fresh state."""

    numbered: NumberedPort
    fresh: NamedArrays


def prover_side(traced: TracedPort) -> ProverSide:
    """Make the prover's view of a port."""

    def lift(program: ProgramName) -> Program | None:
        try:
            return trace_program_float64(traced, program)
        except EquivError:
            return None  # the float64 run reports why

    @cache
    def lift_with_casts(program: ProgramName) -> Program | None:
        own = next((part for part in all_programs(traced.programs) if part.name == program), None)
        if own is None or (lifted := lift(program)) is None:
            return None
        try:
            with enable_x64(True):
                return keep_casts(own, lifted)
        except EquivError:
            return None  # the proof then names the rewrite of leaving casts out

    @cache
    def lift_rounded(program: ProgramName) -> Program | None:
        own = next((part for part in all_programs(traced.programs) if part.name == program), None)
        try:
            with enable_x64(True):
                return None if own is None else leave_casts_out(own)
        except EquivError:
            return None  # the proof is not made

    bounds = traced.tracer.request.bounds
    numbered = NumberedPort(traced.programs, traced.table, lift, lift_with_casts, lift_rounded, bounds=bounds)
    return ProverSide(numbered, traced.fresh)


def keep_names(side: ProverSide, before: ProverSide) -> ProverSide:
    """Take over the names of all programs but the train step, of a port that had another one.

    Args:
        side: the port, of which nothing is numbered yet.
        before: the same port with the other step.
    """
    ours, theirs = side.numbered, before.numbered
    training = (BEGIN, STEP)
    ours.known.update((key, names) for key, names in theirs.known.items() if key[2] not in training)
    ours.applied.update((key, rules) for key, rules in theirs.applied.items() if key[1] not in training)
    ours.needs.update((name, needs) for name, needs in theirs.needs.items() if name not in training)
    ours.casts.update((name, has) for name, has in theirs.casts.items() if name not in training)
    ours.sizes.update((name, size) for name, size in theirs.sizes.items() if name not in training)
    return side


def prove_all(left: ProverSide, candidates: Mapping[str, ProverSide]) -> dict[str, Proofs]:
    """Prove every candidate against the reference."""
    return {
        name: prove(left.numbered, right.numbered, equal_fresh_state(left.fresh, right.fresh))
        for name, right in candidates.items()
    }


def equal_fresh_state(ours: NamedArrays, theirs: NamedArrays) -> frozenset[str]:
    """Name the state leaves that both libraries initialise with the same value."""
    return frozenset(name for name in ours if name in theirs and np.array_equal(ours[name], theirs[name]))


def needed_in_float64(
    table: LeafTable, programs: Programs, proofs: Mapping[str, Proofs]
) -> dict[str, frozenset[ProgramName]]:
    """Map each candidate to its programs with an output without proof, which are run in float64 too.

    A proof under a condition on the inputs (`INPUT_CONDITIONS`) is none here: the inputs of a case may not meet it.

    Args:
        table: the reference's leaf table.
        programs: the reference's programs, of which only the names are read.
        proofs: candidate to its proofs.
    """
    return {name: frozenset(_unproved(table, programs, found)) for name, found in proofs.items()}


def settled_gradients(
    reference: str, left: Programs | None, candidates: Mapping[str, Programs], proofs: Mapping[str, Proofs]
) -> dict[str, frozenset[ProgramName]]:
    """Map each port to its gradients in eval mode that need no run: each output is proved, with no rewrite.

    All else that is proved is run too; of these programs, the call in eval mode and the gradient in train mode are.

    Args:
        reference: name of the reference, which runs what any candidate needs.
        left: its programs; None: nothing is proved.
        candidates: the programs of each candidate.
        proofs: candidate to its proofs.
    """
    settled = {
        name: frozenset() if left is None else _settled((left, programs), proofs.get(name, {}))
        for name, programs in candidates.items()
    }
    shared = frozenset.intersection(*settled.values()) if settled else frozenset[ProgramName]()
    return {reference: shared, **settled}


def _settled(ports: tuple[Programs, Programs], proofs: Proofs) -> frozenset[ProgramName]:
    settled = {output for (output, _, cold), proof in proofs.items() if not cold and not proof.rewrites}
    returned = {part.name: set[OutputName]() for side in ports for part in side.parts}
    for part in (part for side in ports for part in side.parts):
        returned[part.name].update(part.outputs)
    return frozenset(name for name, outputs in returned.items() if name.kind == "eval gradient" and outputs <= settled)


def _unproved(table: LeafTable, programs: Programs, proofs: Proofs) -> set[ProgramName]:
    constants = {leaf.name for leaf in table.leaves if leaf.fixed_value is not None}
    proved = {
        (output, cold)
        for (output, _, cold), proof in proofs.items()
        if not INPUT_CONDITIONS.intersection(proof.rewrites)
    }
    stateful = bool(table.names("state"))
    names: set[ProgramName] = set()
    for part in programs.parts:
        for output in part.outputs:
            if output.is_leaf and output.leaf in constants:
                continue
            if (output, False) not in proved:
                names.add(part.name)
            later = replace(output, after_training=True)
            if stateful and part.name.is_evaluation and {(later, cold) for cold in (False, True)} - proved:
                names |= {part.name, STEP}
    for output in programs.step.outputs if programs.step else ():
        constant = output.is_leaf and output.leaf in constants
        if not constant and {(output.of(TRAINING), cold) for cold in (False, stateful)} - proved:
            names.add(STEP)
    return names
