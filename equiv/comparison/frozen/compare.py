"""Compare ports with a frozen reference, whose library need not be installed."""

from collections.abc import Callable
from dataclasses import replace

from equiv.backends.environment import describe_environment
from equiv.comparison.candidates import (
    Reference,
    ReportStage,
    check_candidate,
    failed_checks,
    make_case_result,
    split_by_structure,
    trace_candidates,
)
from equiv.comparison.frozen.bundle import FrozenProgram, FrozenReference, environment_changes
from equiv.comparison.numeric.run_port import compile_port
from equiv.comparison.observation import PortOutputs, RoundingNoise, Sample
from equiv.comparison.proofs import equal_fresh_state, needed_in_float64, prover_side
from equiv.comparison.sensitivity.proof_mutation import mutate_proofs
from equiv.core.case_files import LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.results import CaseResult, CheckResult, ProbeTrial
from equiv.errors import CaseError, EquivError
from equiv.programs.built_case import BuiltCase, build_case
from equiv.programs.probes import Probe
from equiv.programs.program import Program, Programs
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.prove import NumberedPort, prove
from equiv.programs.prover.version import fingerprint


def compare_with_frozen(
    loaded: LoadedCase, frozen: FrozenReference, progress: Callable[[str], None] = lambda _: None
) -> CaseResult:
    """Compare every model of a case but the frozen one with the frozen reference.

    Args:
        loaded: the case; it need not have the builder of the frozen library.
        frozen: the reference.
        progress: called with a text for every stage.

    Raises:
        CaseError: batch or number of steps of the case differ from the bundle's, or no other model is in the case.
    """
    case, name = loaded.case, loaded.name
    _check_batch_and_steps(loaded, frozen)
    candidates = [name for name in case.models if name != frozen.port]
    if not candidates:
        raise CaseError(
            f"the case has no model but {frozen.port}, which is frozen. Add the port to be checked to its models."
        )
    built_case = build_case(replace(case, models={name: case.models[name] for name in candidates}))
    built_case = replace(built_case, has_modes=built_case.has_modes or frozen.has_modes)
    reference = restore_reference(frozen)
    ready, checks = split_by_structure(built_case, reference.observed, candidates)
    found, trials = _compare_ports(built_case, frozen, reference, ready, lambda stage: progress(f"{name}: {stage}"))
    changed = environment_changes(frozen.environment, describe_environment())
    note = "; ".join(changed) or "the same as when it was frozen"
    trials = (*frozen.sensitivity, *trials, ProbeTrial("environment", note=note))
    shown = f"frozen {frozen.port}"
    tables = {shown: reference.observed.table, **{who: built.table for who, built in built_case.built.items()}}
    return make_case_result(loaded, shown, built_case, [*checks, *found], trials, tables)


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
        {part.name: part.draws for part in (*frozen.parts, frozen.step)},
        dict(frozen.native_paths),
        frozen.why_no_float64,
        frozen.reused,
        frozen.drawn,
    )
    probes = tuple(Probe(one.name, one.seed, one.variables, one.batches) for one in frozen.probes)
    return Reference(observed, probes, RoundingNoise(frozen.noise, frozen.float64_noise, frozen.depth))


def _check_batch_and_steps(loaded: LoadedCase, frozen: FrozenReference) -> None:
    """Refuse a case whose batch or number of steps differ from the bundle's, for which its probes were made."""
    now = (dict(loaded.case.batch), loaded.case.steps)
    for what, before, given in zip(("batch", "steps"), (frozen.batch, frozen.steps), now, strict=True):
        if before != given:
            raise CaseError(
                f"{loaded.name}: {what} {given} in the case, {before} in the bundle. "
                "Freeze the reference again, or change the case to the bundle's."
            )


def _compare_ports(
    built_case: BuiltCase, frozen: FrozenReference, reference: Reference, candidates: list[str], stage: ReportStage
) -> tuple[list[CheckResult], tuple[ProbeTrial, ...]]:
    stage("tracing")
    checks: list[CheckResult] = []
    ready = trace_candidates(built_case, candidates, checks)
    stage("proving")
    left, table = _frozen_side(frozen, reference.observed.table), reference.observed.table
    proofs: dict[str, Proofs] = {
        name: prove(left, prover_side(traced), equal_fresh_state(frozen.fresh, traced.fresh))
        for name, traced in ready.items()
    }
    needed = needed_in_float64(table, left.programs, proofs)
    for name, traced in ready.items():
        stage(f"compiling {name}")
        try:
            compiled = compile_port(built_case, traced, needed[name], quick=not needed[name])()
            checks += check_candidate(built_case, reference, compiled, proofs[name])
        except EquivError as error:
            checks += failed_checks(name, error)
    return checks, mutate_proofs(ready, proofs)


def _frozen_side(frozen: FrozenReference, table: LeafTable) -> NumberedPort:
    """Make the prover's view of the frozen reference; without names where another prover computed them."""
    programs = Programs(
        frozen.port,
        False,
        tuple(map(_program_without_equations, frozen.parts)),
        _program_without_equations(frozen.begin),
        _program_without_equations(frozen.step),
    )
    side = NumberedPort(programs, table, lambda _: None, frozen=True)
    for part in (*frozen.parts, frozen.begin, frozen.step):
        side.needs[part.name] = {
            output: frozenset(part.inputs[number] for number in numbers)
            for output, numbers in zip(part.outputs, part.needs, strict=True)
        }
    for names in frozen.names if frozen.prover == fingerprint() else ():
        side.known[names.float64, frozenset(names.rules), names.program] = names.outputs
        side.applied.setdefault((names.float64, names.program), set()).update(names.rules)
    return side


def _program_without_equations(part: FrozenProgram) -> Program:
    return Program(part.name, None, part.inputs, part.outputs, part.draws)
