"""Ports beside a frozen reference: its library need not be installed."""

from collections.abc import Callable
from dataclasses import replace

from equiv.backends.environment import environment
from equiv.compare.candidates import Reference, Stage, admit, check_candidate, failed, in_order, trace_candidates
from equiv.compare.frozen.bundle import Frozen, Outline, changes
from equiv.compare.numeric.run_port import prepare
from equiv.compare.observation import Noise, Observed, Sample
from equiv.compare.proofs import needed_in_float64, side_of, start_alike
from equiv.compare.sensitivity.proof_mutation import tampered
from equiv.core.case_files import LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.results import CaseResult, CheckResult, Finding, LeafResult
from equiv.core.verdict import verdict_of
from equiv.errors import CaseError, EquivError
from equiv.programs.built_case import Workshop, open_workshop
from equiv.programs.probes import Probe
from equiv.programs.program import Program, Programs
from equiv.programs.prover.proof import Proofs
from equiv.programs.prover.prove import Side, prove
from equiv.programs.prover.version import fingerprint


def run_against(loaded: LoadedCase, frozen: Frozen, progress: Callable[[str], None] = lambda _: None) -> CaseResult:
    """Every model of a case that is not the frozen one, against it.

    Args:
        loaded: the case; the frozen library's builder may be gone from it.
        frozen: the reference.
        progress: told what is being done.

    Raises:
        CaseError: the case's batch or number of steps is not the frozen one's, or no model is left.
    """
    case, name = loaded.case, loaded.name
    _check_same_questions(loaded, frozen)
    candidates = [backend for backend in case.models if backend != frozen.backend]
    if not candidates:
        raise CaseError(f"the case has no model but {frozen.backend}, which is frozen. Give it the port to be checked.")
    workshop = open_workshop(replace(case, models={backend: case.models[backend] for backend in candidates}))
    workshop = replace(workshop, has_modes=workshop.has_modes or frozen.has_modes)
    reference = thawed(frozen)
    ready, checks = admit(workshop, reference.observed, candidates)
    found, told = _compare(workshop, frozen, reference, ready, lambda stage: progress(f"{name}: {stage}"))
    checks = in_order((*checks, *found), candidates)
    changed = changes(frozen.environment, environment())
    note = "; ".join(changed) or "the same as when it was frozen"
    return CaseResult(
        name=name,
        lesson=loaded.lesson,
        guide=case.guide,
        reference=f"frozen {frozen.backend}",
        candidates=tuple(candidates),
        verdicts={who: verdict_of(tuple(item for item in checks if item.candidate == who)) for who in candidates},
        checks=tuple(checks),
        leaves=tuple(
            LeafResult(leaf.name, leaf.spec.shape, leaf.spec.dtype, {f"frozen {frozen.backend}": str(leaf.key)})
            for leaf in frozen.leaves
        ),
        probes=(*frozen.told, *told, Finding("environment", "exact", note=note)),
    )


def thawed(frozen: Frozen) -> Reference:
    """A bundle as what candidates are judged against."""
    leaves = (
        MappedLeaf(leaf.name, leaf.key, Identity(), leaf.spec, leaf.native_shape, leaf.copies, leaf.constant)
        for leaf in frozen.leaves
    )
    observed = Observed(
        LeafTable(frozen.backend, tuple(leaves)),
        frozen.random,
        {probe.name: Sample(probe.native, probe.lifted) for probe in frozen.probes},
        {part.name: part.draws for part in (*frozen.parts, frozen.step)},
        dict(frozen.native_paths),
        frozen.unlifted,
        frozen.reused,
        frozen.drawn,
    )
    probes = tuple(Probe(one.name, one.seed, one.variables, one.batches) for one in frozen.probes)
    return Reference(observed, probes, Noise(frozen.noise, frozen.lifted_noise, frozen.depth))


def _check_same_questions(loaded: LoadedCase, frozen: Frozen) -> None:
    """Probes answer the questions they were made for."""
    now = (dict(loaded.case.batch), loaded.case.steps)
    for what, before, given in zip(("batch", "steps"), (frozen.batch, frozen.steps), now, strict=True):
        if before != given:
            raise CaseError(
                f"{loaded.name}: {what} {given} in the case, {before} in the bundle. "
                "Freeze the reference anew, or give the case the bundle's."
            )


def _compare(
    workshop: Workshop, frozen: Frozen, reference: Reference, candidates: list[str], stage: Stage
) -> tuple[list[CheckResult], tuple[Finding, ...]]:
    stage("tracing")
    checks: list[CheckResult] = []
    ready = trace_candidates(workshop, candidates, checks)
    stage("proving")
    left, table = _side(frozen, reference.observed.table), reference.observed.table
    proofs: dict[str, Proofs] = {
        name: prove(left, side_of(traced), start_alike(frozen.fresh, traced.fresh)) for name, traced in ready.items()
    }
    needed = needed_in_float64(table, left.programs, proofs)
    for name, traced in ready.items():
        stage(f"compiling {name}")
        try:
            prepared = prepare(workshop, traced, needed[name], quick=not needed[name])()
            checks += check_candidate(workshop, reference, prepared, proofs[name])
        except EquivError as error:
            checks += failed(name, error)
    return checks, tampered(ready, proofs)


def _side(frozen: Frozen, table: LeafTable) -> Side:
    """The frozen reference as the prover takes it; without names where another prover gave them."""
    programs = Programs(
        frozen.backend, False, tuple(map(_program, frozen.parts)), _program(frozen.begin), _program(frozen.step)
    )
    side = Side(programs, table, lambda _: None, frozen=True)
    for part in (*frozen.parts, frozen.begin, frozen.step):
        side.needs[part.name] = {output: frozenset(inputs) for output, inputs in part.needs.items()}
    for names in frozen.names if frozen.prover == fingerprint() else ():
        side.known[names.lifted, frozenset(names.rules), names.program] = names.outputs
        side.applied.setdefault((names.lifted, names.program), set()).update(names.rules)
    return side


def _program(part: Outline) -> Program:
    return Program(part.name, None, part.inputs, part.outputs, part.draws)
