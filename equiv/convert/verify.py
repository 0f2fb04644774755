"""The converted model beside the original: both are run, from what lies in the two checkpoints."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from equiv.compare.checks import gradients, outputs, state, train
from equiv.compare.numeric.rounding import noise_of
from equiv.compare.numeric.run_port import observe, prepare, sample
from equiv.compare.observation import Comparison
from equiv.compare.proofs import needed_in_float64, prove_all
from equiv.compare.prove_only import prove_candidates
from equiv.convert.formats.checkpoint import CheckpointError
from equiv.convert.formats.registry import open_checkpoint
from equiv.convert.formats.tree_paths import shown
from equiv.convert.manifest import LeafRecord, sha256_of
from equiv.convert.plan.plan import Plan
from equiv.convert.source.expected_leaves import OPTIMIZER
from equiv.convert.source.locate import locate
from equiv.convert.source.located_checkpoint import Source
from equiv.core.case import Case
from equiv.core.grades import EQUAL, Verdict
from equiv.core.leaves import LeafTable
from equiv.core.results import CheckResult
from equiv.core.verdict import verdict_of, weakest
from equiv.programs.built_case import Workshop, open_workshop
from equiv.programs.probes import Arrays, Probe, make_probe
from equiv.programs.trace import trace
from equiv.programs.traced_port import Traced, trace_port

SEEDS = {"0": 11, "1": 12}
"""Probe name to the seed of its batches."""


class NotSame(CheckpointError):
    """The converted model is not the original, or nothing can be said.

    Attributes:
        verdict: `different` or `inconclusive`.
    """

    def __init__(self, text: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.verdict: Verdict = verdict


def check_training(case: Case, plan: Plan) -> str:
    """Does the optimizer notice that parameters lie otherwise in the other library? Proved, or else run.

    Returns:
        What was found; empty where every parameter lies as it did, so that no optimizer can notice.

    Raises:
        NotSame: it does.
    """
    if set(plan.relations) <= {"same"}:
        return ""
    moved = ", ".join(f"{leaf} is {relation}" for relation, leaf in plan.relations.items() if relation != "same")
    ours, theirs = plan.source.backend, plan.target.port.backend
    workshop = _workshop(case, ours, theirs)
    found = _of_optimizer(plan, prove_candidates(workshop, [theirs]))
    if found.grade in EQUAL:
        return f"{moved}: the optimizer does not notice, train steps of both libraries are the same: {found.grade}"
    alone = [_step_alone(trace_port(workshop, backend)) for backend in (ours, theirs)]
    left, right = alone
    given = [make_probe(name, seed, left.table, workshop.entries, case.steps) for name, seed in SEEDS.items()]
    run = _checks(workshop, (left, right), (given, given), frozenset(("step",)), (train,))
    found = _of_optimizer(plan, run)
    if found.grade not in EQUAL:
        where = next((item for item in found.findings if item.grade == found.grade), None)
        raise NotSame(
            f"{plan.source.checkpoint.file}: the optimizer's state cannot be taken over: in {theirs} {moved}, and "
            f"train steps of both libraries are {found.grade}{f' at {where.place}, {where.note}' if where else ''}. "
            "Say --drop opt_state to begin it anew.",
            "different" if found.grade == "refuted" else "inconclusive",
        )
    return f"{moved}: the optimizer does not notice, train steps of both libraries agree: {found.grade}"


def _workshop(case: Case, ours: str, theirs: str) -> Workshop:
    """The two libraries of a conversion, the old one as the reference.

    Without known differences: they speak of training from fresh state.
    """
    pair = {name: case.models[name] for name in (ours, theirs)}
    workshop = open_workshop(replace(case, models=pair, known_differences=()))
    for problem in workshop.problems.values():
        raise problem
    return workshop


def _step_alone(traced: Traced) -> Traced:
    return replace(traced, programs=replace(traced.programs, parts=()))


def _of_optimizer(plan: Plan, checks: Sequence[CheckResult]) -> CheckResult:
    """The check of training, of parameters and what is kept of them."""
    (check,) = [check for check in checks if check.check == train.NAME]
    params = {leaf.name for leaf in plan.target.table.leaves if leaf.spec.collection == "params"}
    kept = [
        item
        for item in check.findings
        if (name := item.place.removeprefix("train: ")) in params or name.startswith(f"{OPTIMIZER}/")
    ]
    return replace(check, grade=weakest(tuple(kept)), findings=tuple(kept))


def verify(case: Case, plan: Plan, new: Path, records: Sequence[LeafRecord]) -> str:
    """Read the new checkpoint back, and run both models from what the two hold.

    Raises:
        NotSame: they differ, or nothing can be said.
        CheckpointError: a leaf is not what was written.
    """
    with closing(open_checkpoint(new)) as checkpoint:
        converted = Source(checkpoint, locate(checkpoint, plan.target), nonfinite=True)
        by_path = {record.path: record for record in records}
        for slot_path, path in converted.located.places.items():
            record = by_path[shown(slot_path)]
            if sha256_of(converted.read(path)) != record.sha256:
                raise CheckpointError(f"{new.name}: leaf {record.path!r} was read back otherwise than it was written.")
        if plan.source.backend == plan.target.port.backend:
            return "every leaf read back as it was written; both are of one library"
        found = _compare(case, plan.source, converted)
    verdict = verdict_of(tuple(found))
    grades = ", ".join(f"{check.check} {check.grade}" for check in found)
    if verdict != "same":
        unequal = [check for check in found if check.grade not in EQUAL]
        where = next((item for check in unequal for item in check.findings if item.grade == check.grade), None)
        raise NotSame(
            f"{new.name}: the converted model is {verdict}: {grades}"
            f"{f'; first at {where.place}: {where.note}' if where else ''}. It is not kept.",
            "inconclusive" if verdict == "inconclusive" else "different",
        )
    return f"same: {grades}, run from what the two checkpoints hold"


def _compare(case: Case, ours: Source, theirs: Source) -> list[CheckResult]:
    workshop = _workshop(case, ours.backend, theirs.backend)
    left, right = (_from_checkpoint(trace_port(workshop, side.backend), side) for side in (ours, theirs))
    proofs = prove_all(left, {theirs.backend: right})
    # A lifted step begins with a fresh optimizer: it is compared in its own precision, from the checkpoint's.
    needed = needed_in_float64(left.table, left.programs, proofs)[theirs.backend] - {"step"}
    probes = (_probes(workshop, left.table, ours), _probes(workshop, right.table, theirs))
    return _checks(workshop, (left, right), probes, needed, (outputs, gradients, state, train))


def _probes(workshop: Workshop, table: LeafTable, source: Source) -> list[Probe]:
    """The checkpoint's own variables with two different batches for each step."""
    variables: Arrays = {leaf.name: source.canonical(leaf.name) for leaf in table.leaves if not leaf.own}
    made = [make_probe(name, seed, table, workshop.entries, workshop.case.steps) for name, seed in SEEDS.items()]
    return [replace(probe, variables=variables) for probe in made]


def _checks(
    workshop: Workshop,
    traced: tuple[Traced, Traced],
    probes: tuple[Sequence[Probe], Sequence[Probe]],
    needed: frozenset[str],
    modules: Sequence[ModuleType],
) -> list[CheckResult]:
    """Both ports run, each from its own variables, and judged by numbers alone.

    A proof speaks of equal variables, and whether these are equal is what is asked.

    Args:
        workshop: the case.
        traced: reference and candidate.
        probes: of each.
        needed: programs that are run in float64 too.
        modules: the checks.
    """
    waits = [prepare(workshop, one, needed, quick=not needed) for one in traced]
    left, right = (ready() for ready in waits)
    given = {probe.name: sample(left, probe) for probe in probes[0]}
    taken = {probe.name: sample(right, probe) for probe in probes[1]}
    noise = noise_of(left, given, list(probes[0]))
    comparison = Comparison(workshop.case, observe(left, given), observe(right, taken), noise)
    own = {leaf.name for one in traced for leaf in one.table.leaves if leaf.own}
    return [_without(result, own) for module in modules if (result := module.check(comparison)) is not None]


def _without(result: CheckResult, own: set[str]) -> CheckResult:
    """A check without the leaves that only one of the libraries has."""
    kept = [item for item in result.findings if item.place.partition(": ")[2].removeprefix("state ") not in own]
    return replace(result, grade=weakest(tuple(kept)), findings=tuple(kept))


def _from_checkpoint(traced: Traced, source: Source) -> Traced:
    """A port that begins to train where its checkpoint left off, with the optimizer's state from there."""
    begin = traced.programs.begin
    if begin is None:
        return traced
    known = {
        name: source.canonical(name)
        for name, place in source.places.items()
        if place.slot.role in ("optimizer", "bookkeeping")
    }

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        made = jaxpr_as_fun(begin.jaxpr)(*(inputs[name] for name in begin.inputs))
        return {
            name: jnp.asarray(known[name], value.dtype) if name in known else value
            for name, value in zip(begin.outputs, made, strict=True)
        }

    specs = dict(zip(begin.inputs, begin.jaxpr.in_avals, strict=True))
    return replace(traced, programs=replace(traced.programs, begin=trace("begin", run, specs)))
