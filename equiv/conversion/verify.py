"""Verify a conversion: run both models, each from its own checkpoint, and compare them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from equiv.comparison.pipeline import PROVE_ONLY
from equiv.comparison.stages import (
    check_candidates,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import CaseState, advance
from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.conversion.formats.registry import open_checkpoint
from equiv.conversion.formats.tree_paths import path_text
from equiv.conversion.manifest import LeafRecord, sha256_of
from equiv.conversion.plan.plan import Plan
from equiv.conversion.source.locate import match_template
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint
from equiv.core.case import Case
from equiv.core.grades import EQUAL_GRADES, Verdict
from equiv.core.leaves import LeafTable
from equiv.core.output_name import BEGIN, STEP, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade, verdict_of
from equiv.errors import PortError
from equiv.programs.built_case import BuiltCase
from equiv.programs.probes import NamedArrays, Probe, make_probe
from equiv.programs.trace import NamedInputs, NamedOutputs, trace_function
from equiv.programs.traced_port import TracedPort

BATCH_SEEDS = {"0": 11, "1": 12}
"""Probe name to the seed of its batches."""


class ConversionMismatch(CheckpointError):
    """The converted model is different from the original, or the comparison is inconclusive.

    Attributes:
        verdict: `different` or `inconclusive`.
    """

    def __init__(self, problem: str, verdict: Verdict, *, fix: str = "", port: str = "", leaf: str = "") -> None:
        super().__init__(problem, fix=fix, port=port, leaf=leaf)
        self.verdict: Verdict = verdict


def check_training(case: Case, plan: Plan) -> str:
    """Check that training does not depend on the layout of parameters in the other library: by proof, or else by a run.

    Returns:
        A note of the result; empty where every parameter has the same layout, so that no optimizer can depend on it.

    Raises:
        ConversionMismatch: it does depend on the layout.
    """
    if set(plan.relations) <= {"same"}:
        return ""
    moved = ", ".join(f"{leaf} is {relation}" for relation, leaf in plan.relations.items() if relation != "same")
    ours, theirs = plan.source.backend, plan.target.port.name
    proved = advance(_open_pair(case, ours, theirs), PROVE_ONLY)
    found = _optimizer_check(plan, proved.checks)
    if found.grade in EQUAL_GRADES:
        return (
            f"{moved}: the optimizer does not depend on it, train steps of both libraries are the same: {found.grade}"
        )
    steps = {name: replace(one, programs=replace(one.programs, parts=())) for name, one in proved.traced.items()}
    table = steps[ours].table
    given = [make_probe(name, seed, table, proved.built_case.entries, case.steps) for name, seed in BATCH_SEEDS.items()]
    both = {ours: given, theirs: given}
    run = _run_checks(replace(proved, traced=steps, checks=()), both, frozenset((STEP,)), ("train",))
    found = _optimizer_check(plan, run)
    if found.grade not in EQUAL_GRADES:
        where = next((item for item in found.findings if item.grade == found.grade), None)
        raise ConversionMismatch(
            f"{plan.source.checkpoint.file}: the optimizer's state cannot be converted: in {theirs} {moved}, and "
            f"train steps of both libraries are {found.grade}{f' at {where.place}, {where.note}' if where else ''}.",
            "different" if found.grade == "refuted" else "inconclusive",
            fix="Pass --drop opt_state to start with a new one.",
        )
    return f"{moved}: the optimizer does not depend on it, train steps of both libraries agree: {found.grade}"


def _open_pair(case: Case, ours: str, theirs: str) -> CaseState:
    """Build the two libraries of a conversion, the old one as the reference.

    Known differences are left out: they are about training from a new state.
    """
    state = open_case(replace(case, models={name: case.models[name] for name in (ours, theirs)}, known_differences=()))
    for problem in state.built_case.problems.values():
        raise problem
    return state


def _optimizer_check(plan: Plan, checks: Sequence[CheckResult]) -> CheckResult:
    """The check of training, restricted to parameters and optimizer state."""
    (check,) = [check for check in checks if check.check == "train"]
    params = {leaf.name for leaf in plan.target.table.leaves if leaf.spec.collection == "params"}
    return _keep_findings(
        check, lambda item: item.output is not None and (item.output.kind == "optimizer" or item.leaf in params)
    )


def _keep_findings(result: CheckResult, wanted: Callable[[Finding], bool]) -> CheckResult:
    """Some findings of a check, and the grade that these have."""
    kept = tuple(item for item in result.findings if wanted(item))
    return replace(result, grade=check_grade(kept), findings=kept)


def verify(case: Case, plan: Plan, new: Path, records: Sequence[LeafRecord]) -> str:
    """Read the new checkpoint back, and run and compare both models, each from its own checkpoint.

    Raises:
        ConversionMismatch: they differ, or the comparison is inconclusive.
        CheckpointError: a leaf is not what was written.
    """
    with closing(open_checkpoint(new)) as checkpoint:
        converted = LocatedCheckpoint(checkpoint, match_template(checkpoint, plan.target), nonfinite=True)
        by_path = {record.path: record for record in records}
        for slot_path, path in converted.located.places.items():
            record = by_path[path_text(slot_path)]
            if sha256_of(converted.read(path)) != record.sha256:
                raise CheckpointError(
                    f"{new.name}: leaf {record.path!r} was read back with other bytes than were written.",
                    leaf=record.path,
                )
        if plan.source.backend == plan.target.port.name:
            return "every leaf read back as it was written; both are of one library"
        found = _compare_checkpoints(case, plan.source, converted)
    verdict = verdict_of(tuple(found))
    grades = ", ".join(f"{check.check} {check.grade}" for check in found)
    if verdict != "same":
        unequal = [check for check in found if check.grade not in EQUAL_GRADES]
        where = next((item for check in unequal for item in check.findings if item.grade == check.grade), None)
        raise ConversionMismatch(
            f"{new.name}: the converted model is {verdict}: {grades}"
            f"{f'; first at {where.place}: {where.note}' if where else ''}. It is not kept.",
            "inconclusive" if verdict == "inconclusive" else "different",
        )
    return f"same: {grades}, run from what the two checkpoints hold"


def _compare_checkpoints(case: Case, ours: LocatedCheckpoint, theirs: LocatedCheckpoint) -> Sequence[CheckResult]:
    state = trace_ports(_open_pair(case, ours.backend, theirs.backend))
    sides = {side.backend: side for side in (ours, theirs)}
    resumed = {name: _resume_from_checkpoint(traced, sides[name]) for name, traced in state.traced.items()}
    state = prove_ports(replace(state, traced=resumed))
    # A float64 step would start with a new optimizer state: the step is compared in its own dtype, from the checkpoint.
    needed = state.in_float64[theirs.backend] - {STEP}
    probes = {name: _checkpoint_probes(state.built_case, traced.table, sides[name]) for name, traced in resumed.items()}
    return _run_checks(state, probes, needed, ("outputs", "gradients", "state", "train"))


def _checkpoint_probes(built: BuiltCase, table: LeafTable, source: LocatedCheckpoint) -> list[Probe]:
    """The checkpoint's own variables with two different batches for each step."""
    variables: NamedArrays = {leaf.name: source.canonical(leaf.name) for leaf in table.leaves if not leaf.library_only}
    made = [make_probe(name, seed, table, built.entries, built.case.steps) for name, seed in BATCH_SEEDS.items()]
    return [replace(probe, variables=variables) for probe in made]


def _run_checks(
    state: CaseState, probes: Mapping[str, Sequence[Probe]], needed: frozenset[ProgramName], names: Sequence[str]
) -> Sequence[CheckResult]:
    """Run both ports, each from its own variables, and compare their outputs numerically.

    Proofs do not apply: they assume equal variables, and whether these are equal is the question.

    Args:
        state: the case, traced.
        probes: those of each port.
        needed: programs that are also run in float64.
        names: the checks to run.

    Raises:
        EquivError: a port cannot be traced, compiled or run.
    """
    built_case = replace(state.built_case, case=replace(state.built_case.case, checks=tuple(names)))
    asked = replace(state, built_case=built_case, proofs={}, probes=probes, in_float64=dict.fromkeys(probes, needed))
    found = advance(asked, (start_compiling, run_reference, check_candidates)).checks
    for check in found:
        if check.grade == "error":
            raise PortError(check.summary)
    own = {leaf.name for one in state.traced.values() for leaf in one.table.leaves if leaf.library_only}
    # That only one port has a train step of its own is no fault of the checkpoint: it is the finding without an output.
    return [_keep_findings(result, lambda item: item.output is not None and item.leaf not in own) for result in found]


def _resume_from_checkpoint(traced: TracedPort, source: LocatedCheckpoint) -> TracedPort:
    """A port whose training resumes from its checkpoint, with the optimizer state stored there."""
    begin = traced.programs.begin
    if begin is None:
        return traced
    known = {
        name: source.canonical(name)
        for name, place in source.places.items()
        if place.slot.role in ("optimizer", "bookkeeping")
    }

    def run(inputs: NamedInputs) -> NamedOutputs:
        made = jaxpr_as_fun(begin.jaxpr)(*(inputs[name] for name in begin.inputs))
        return {
            name: jnp.asarray(known[name.text], value.dtype) if name.text in known else value
            for name, value in zip(begin.outputs, made, strict=True)
        }

    specs = dict(zip(begin.inputs, begin.jaxpr.in_avals, strict=True))
    return replace(traced, programs=replace(traced.programs, begin=trace_function(BEGIN, run, specs)))
