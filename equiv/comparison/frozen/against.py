"""Compare ports with a frozen reference, whose library need not be installed."""

from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np

from equiv.backends.batches import resolve_batch
from equiv.backends.build import DefaultSgd, call_texts, port_spec
from equiv.backends.environment import describe_environment
from equiv.comparison.frozen.bundle import FrozenProgram, FrozenReference, environment_changes
from equiv.comparison.frozen.edges import restore_edges
from equiv.comparison.observation import PortOutputs, RoundingNoise, Sample
from equiv.comparison.proofs import ProverSide
from equiv.comparison.state import CaseState, Reference, ReportStage
from equiv.core.case_files import LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.output_name import STEP
from equiv.core.results import ProbeTrial
from equiv.errors import CaseError
from equiv.programs.built_case import build_case, share_train_step
from equiv.programs.probes import Probe
from equiv.programs.program import Program, Programs
from equiv.programs.prover.dependencies import Dependencies
from equiv.programs.prover.numbered_port import NumberedPort
from equiv.programs.prover.proof import Form
from equiv.programs.prover.version import fingerprint
from equiv.programs.table_bounds import bound_by_tables


def open_against(loaded: LoadedCase, frozen: FrozenReference, progress: ReportStage = lambda _: None) -> CaseState:
    """Build every model of a case but the frozen one, which is the reference.

    Args:
        loaded: the case; it need not have the builder of the frozen library.
        frozen: the reference.
        progress: called with a text for every stage.

    Raises:
        CaseError: batch or number of steps of the case differ from the bundle's, or no other model is in the case.
    """
    case = bound_by_tables(resolve_batch(loaded.case))
    _check_batch_and_steps(replace(loaded, case=case), frozen)
    candidates = tuple(name for name in case.models if name != frozen.port)
    if not candidates:
        raise CaseError(
            f"the case has no model but {frozen.port}, which is frozen.",
            fix="Add the port to be checked to its models.",
        )
    optimizer = case.optimizer or DefaultSgd(frozen.default_rate)
    models = {name: case.models[name] for name in candidates}
    # All is traced, as the bundle holds all; what is not asked for is not reported.
    built_case = build_case(replace(case, models=models, optimizer=optimizer, checks=None))
    built_case = share_train_step(built_case, frozen.train_step == "own")
    built_case = replace(
        built_case,
        case=replace(built_case.case, checks=case.checks),
        has_modes=built_case.has_modes or frozen.has_modes,
    )
    reference = restore_reference(frozen)
    side = ProverSide(_number_frozen(frozen, reference.observed.table), frozen.fresh)
    return CaseState(
        built_case,
        frozen.port,
        candidates,
        progress,
        prover_side=side,
        observed=reference,
        frozen_edges=restore_edges(frozen),
        edges_refused=frozen.edges_refused,
        frozen_thresholds=frozenset(frozen.thresholds),
    )


def add_frozen_trials(state: CaseState, frozen: FrozenReference) -> CaseState:
    """Add the trials that the bundle holds, and which versions changed since."""
    changed = environment_changes(frozen.environment, describe_environment())
    note = "; ".join(changed) or "the same as when it was frozen"
    return replace(state, trials=(*frozen.sensitivity, *state.trials, ProbeTrial("environment", note=note)))


def restore_reference(frozen: FrozenReference) -> Reference:
    """Restore the reference from a bundle."""
    leaves = (
        MappedLeaf(leaf.name, leaf.key, Identity(), leaf.spec, leaf.native_shape, leaf.mirrors, leaf.fixed_value)
        for leaf in frozen.leaves
    )
    observed = PortOutputs(
        LeafTable(frozen.port, tuple(leaves), frozen.library),
        frozen.random,
        {probe.name: Sample(probe.native, probe.float64) for probe in frozen.probes},
        {part.name: part.draws for part in frozen.parts} | ({} if frozen.step is None else {STEP: frozen.step.draws}),
        dict(frozen.native_paths),
        frozen.why_no_float64,
        frozen.reused,
        frozen.drawn,
        frozen.train_step,
        frozen.no_gradients,
    )
    kept = frozenset(frozen.kept)
    probes = tuple(Probe(one.name, one.seed, one.variables, one.batches, kept=kept) for one in frozen.probes)
    return Reference(observed, probes, RoundingNoise(frozen.noise, frozen.float64_noise, frozen.depth))


def _check_batch_and_steps(loaded: LoadedCase, frozen: FrozenReference) -> None:
    """Refuse a case whose batch or number of steps differ from the bundle's, for which its probes were made."""
    fix = "Freeze the reference again, or change the case to the bundle's."
    request, entries = port_spec(loaded.case)
    texts = {name: str(entry) for name, entry in entries.items()}
    methods = call_texts(loaded.case, request)
    for what, before, given in (
        ("batch", frozen.batch, texts),
        ("steps", frozen.steps, loaded.case.steps),
        ("methods", frozen.methods, methods),
    ):
        if before != given:
            raise CaseError(f"{loaded.name}: {what} {given} in the case, {before} in the bundle.", fix=fix)
    kept = {name: entry.kept for name, entry in entries.items() if entry.kept is not None}
    for name in sorted({*kept, *frozen.kept}):
        if name not in kept or name not in frozen.kept or not np.array_equal(kept[name], frozen.kept[name]):
            raise CaseError(f"{loaded.name}: the kept values of {name} are not those in the bundle.", fix=fix)


def _number_frozen(frozen: FrozenReference, table: LeafTable) -> NumberedPort:
    """Make the prover's view of the frozen reference; without names where another prover computed them."""
    programs = Programs(
        frozen.port,
        False,
        tuple(map(_program_without_equations, frozen.parts)),
        None if frozen.begin is None else _program_without_equations(frozen.begin),
        None if frozen.step is None else _program_without_equations(frozen.step),
        frozen.no_gradients,
    )
    side = NumberedPort(programs, table, lambda _: None, frozen=True)
    for part in filter(None, (*frozen.parts, frozen.begin, frozen.step)):
        side.casts[part.name] = part.casts
        masks = (reduce(or_, (1 << number for number in numbers), 0) for numbers in part.needs)
        side.needs[part.name] = Dependencies(part.inputs, dict(zip(part.outputs, masks, strict=True)))
    for names in frozen.names if frozen.prover == fingerprint() else ():
        side.known[Form(names.precision), frozenset(names.rules), names.program] = names.outputs
        side.applied.setdefault((Form(names.precision), names.program), set()).update(names.rules)
    return side


def _program_without_equations(part: FrozenProgram) -> Program:
    return Program(part.name, None, part.inputs, part.outputs, part.draws)
