"""The converted model beside the original: both are run, from what lies in the two checkpoints."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from equiv.case import Case
from equiv.checks import gradients, outputs, state, train
from equiv.convert.checkpoint import CheckpointError
from equiv.convert.locate import locate
from equiv.convert.manifest import LeafRecord, sha256_of
from equiv.convert.plan import Plan
from equiv.convert.readers import open_checkpoint
from equiv.convert.source import Source
from equiv.convert.tree import shown
from equiv.load import LoadedCase
from equiv.observe import Prepared, noise_of, observe, prepare, sample
from equiv.observed import Comparison
from equiv.probe import Arrays, Probe, make_probe
from equiv.proofs import needed_in_float64, prove_all
from equiv.results import EQUAL, CheckResult, Verdict, verdict_of, weakest
from equiv.run import run_case
from equiv.trace import trace
from equiv.traced import Traced, trace_port
from equiv.workshop import Workshop, open_workshop

SEEDS = {"0": 11, "1": 12}
"""Probe name to the seed of its batches."""

CHECKS = (outputs, gradients, state, train)


class NotSame(CheckpointError):
    """The converted model is not the original, or nothing can be said.

    Attributes:
        verdict: `different` or `inconclusive`.
    """

    def __init__(self, text: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.verdict: Verdict = verdict


def pair_of(case: Case, plan: Plan) -> Case:
    """The case with the two libraries of a conversion alone; the old one is the reference."""
    return replace(case, models={name: case.models[name] for name in (plan.source.backend, plan.target.port.backend)})


def check_training(case: Case, plan: Plan) -> str:
    """Run the train steps of both libraries, where parameters lie otherwise there: does the optimizer notice?

    Returns:
        What was found; empty where every parameter lies as it did, so that no optimizer can notice.

    Raises:
        NotSame: it does.
    """
    if set(plan.relations) <= {"same"}:
        return ""
    moved = ", ".join(f"{leaf} is {relation}" for relation, leaf in plan.relations.items() if relation != "same")
    result = run_case(LoadedCase("pair", "", pair_of(case, plan)))
    (check,) = [check for check in result.checks if check.check == train.NAME]
    if check.grade not in EQUAL:
        where = next((item for item in check.findings if item.grade == check.grade), None)
        raise NotSame(
            f"{plan.source.checkpoint.file}: the optimizer's state cannot be taken over. In {plan.target.port.backend} "
            f"{moved}, and five steps of both libraries are {check.grade}"
            f"{f' at {where.place}: {where.note}' if where else ''}. Say --drop opt_state to begin it anew.",
            "different" if check.grade == "refuted" else "inconclusive",
        )
    return f"{moved}; five train steps of both libraries agree: {check.grade}"


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
    pair = {name: case.models[name] for name in (ours.backend, theirs.backend)}
    workshop = open_workshop(replace(case, models=pair, known_differences=()))
    for problem in workshop.problems.values():
        raise problem
    left, right = (_from_checkpoint(trace_port(workshop, side.backend), side) for side in (ours, theirs))
    proofs = prove_all(left, {theirs.backend: right})
    needed = needed_in_float64(left.table, left.programs, proofs)[theirs.backend] - {"step"}
    waits = [prepare(workshop, traced, needed, quick=not needed) for traced in (left, right)]
    reference, candidate = (ready() for ready in waits)
    given = _probes(workshop, reference, {name: ours.canonical(name) for name in _shared(reference)})
    taken = _probes(workshop, candidate, {name: theirs.canonical(name) for name in _shared(candidate)})
    first = {probe.name: sample(reference, probe) for probe in given}
    second = {probe.name: sample(candidate, probe) for probe in taken}
    noise = noise_of(reference, first, given)
    # By numbers alone: a proof speaks of equal variables, and whether these are equal is what is asked.
    comparison = Comparison(workshop.case, observe(reference, first), observe(candidate, second), noise)
    own = {leaf.name for side in (left, right) for leaf in side.table.leaves if leaf.own}
    return [_without(result, own) for module in CHECKS if (result := module.check(comparison)) is not None]


def _shared(prepared: Prepared) -> list[str]:
    return [leaf.name for leaf in prepared.table.leaves if not leaf.own]


def _probes(workshop: Workshop, prepared: Prepared, variables: Arrays) -> list[Probe]:
    """The checkpoint's own variables with two different batches for each step."""
    entries, steps = workshop.entries, workshop.case.steps
    made = [make_probe(name, seed, prepared.table, entries, steps) for name, seed in SEEDS.items()]
    return [replace(probe, variables=variables) for probe in made]


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
