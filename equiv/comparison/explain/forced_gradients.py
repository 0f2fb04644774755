"""Train steps whose updates are compared on equal gradients: those of the reference stand in the candidate's step.

So the optimizers are compared by themselves, whatever the losses and their gradients differ by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from equiv.comparison.explain.causes.trial import LEAF_VIEWS, fit
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import (
    Changes,
    Edit,
    Place,
    Recording,
    RecordingEvaluation,
    record_program,
)
from equiv.comparison.explain.trying import ChangesOf
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.output_name import STEP, OutputName
from equiv.core.packing import assemble_native_leaf
from equiv.programs.program import Program
from equiv.programs.transform import select_outputs

Tables = tuple[LeafTable, LeafTable]


def force_gradients(runs: ProgramRuns, tables: Tables) -> tuple[ProgramRuns, ChangesOf] | None:
    """Give the updates of two train steps, and the changes that put the reference's gradients into the candidate's.

    Args:
        runs: the train steps.
        tables: the leaf tables of both ports.

    Returns:
        None: the steps have no gradient of every parameter that only its own update reads.
    """
    names = set(tables[0].names("params"))
    programs = runs.reference, runs.candidate
    kept = [_updated(program, names) for program in programs]
    steps = [select_outputs(program, outputs) for program, outputs in zip(programs, kept, strict=True)]
    refuted = tuple(name for name in runs.refuted if name in kept[0] and name in kept[1])
    updates = replace(runs, reference=steps[0], candidate=steps[1], refuted=refuted)
    sides = [record_program(step, given, prints=False) for step, given in zip(steps, updates.inputs[0], strict=True)]
    found = [_find_gradients(side, table) for side, table in zip(sides, tables, strict=True)]
    if not refuted or found[0] is None or found[1] is None:
        return None
    return updates, partial(_force, _make_forced(updates, tables, sides[1], found[0], found[1]))


def _updated(program: Program, names: set[str]) -> tuple[OutputName, ...]:
    """The parameters and slots of the optimizer after a step."""
    return tuple(
        one for one in program.outputs if one.kind == "optimizer" or (one.kind == "leaf" and one.leaf in names)
    )


Gradients = Mapping[str, int]
"""Parameter to the value that is the gradient of the native leaf which holds it."""


def _find_gradients(step: Recording, table: LeafTable) -> Gradients | None:
    """The gradient of every parameter that a train step updates; None: one has none, or several."""
    backward = _differentiated(step)
    found: dict[str, int] = {}
    for leaf in table.leaves:
        if leaf.spec.collection != "params" or leaf.library_only:
            continue
        output = step.outputs.get(OutputName(STEP, "leaf", leaf=leaf.name))
        if output is None:
            return None
        reached = _reach_gradients(step, output, backward)
        if not reached and output in step.inputs:
            continue  # not trained
        if len(reached) != 1 or step.shapes[reached[0]] != leaf.native_shape or _is_collected(step, reached[0]):
            return None
        found[leaf.name] = reached[0]
    return found or None


def _is_collected(step: Recording, value: int) -> bool:
    """Whether a loop gives it, of whose results no single one is changed."""
    maker = step.maker_of(value)
    return maker is None or bool(maker.kind)


def _differentiated(step: Recording) -> set[int]:
    """Indices of the operations of a loss and its gradient: those that something differentiated depends on."""
    found, needed = set[int](), set[int]()
    for index in reversed(range(len(step.operations))):
        one = step.operations[index]
        if not needed.isdisjoint(one.outs) or one.is_differentiated:
            found.add(index)
            needed.update(one.ins)
    return found


def _reach_gradients(step: Recording, output: int, backward: set[int]) -> list[int]:
    """The results of a backward pass that an updated parameter depends on element by element."""
    todo, seen, found = [output], {output}, list[int]()
    while todo:
        value = todo.pop()
        index = step.maker.get(value)
        if index is None:
            continue
        if index in backward:
            found.append(value)
            continue
        one = step.operations[index]
        size = np.prod(step.shapes[value])
        for operand in one.ins:
            similar = np.prod(step.shapes[operand]) == size or (one.primitive in LEAF_VIEWS and not one.kind)
            if operand not in seen and similar and step.moving[operand]:
                seen.add(operand)
                todo.append(operand)
    return found


def _make_forced(
    runs: ProgramRuns, tables: Tables, theirs: Recording, ours: Gradients, own: Gradients
) -> list[dict[tuple[Place, int], np.ndarray]]:
    """On each probe, the reference's gradient for every result of the candidate that is one."""
    forced = []
    for left, _ in runs.inputs:
        kept = record_program(runs.reference, left, prints=False, keep=frozenset(ours.values())).kept
        canonical = {name: tables[0][name].to_canonical(kept[value]) for name, value in ours.items()}
        arrays: dict[tuple[Place, int], np.ndarray] = {}
        for leaves in _by_native_leaf(tables[1]):
            value = own.get(leaves[0].name)
            if value is not None and all(leaf.name in canonical for leaf in leaves):
                maker = theirs.maker_of(value)
                assert maker is not None, "the result of a backward pass"
                array = np.asarray(assemble_native_leaf(leaves, canonical))
                arrays[maker.place, maker.outs.index(value)] = array
        forced.append(arrays)
    return forced


def _by_native_leaf(table: LeafTable) -> list[list[MappedLeaf]]:
    leaves = sorted((one for one in table.leaves if not one.library_only), key=lambda one: one.key)
    return [list(some) for _, some in groupby(leaves, key=lambda one: one.key)]


def _force(forced: Sequence[Mapping[tuple[Place, int], np.ndarray]], probe: int) -> Changes:
    by_place: dict[Place, dict[int, np.ndarray]] = {}
    for (place, index), array in forced[probe].items():
        by_place.setdefault(place, {})[index] = array
    return Changes(tuple(Edit(place, partial(_with_results, arrays)) for place, arrays in by_place.items()))


def _with_results(
    arrays: Mapping[int, np.ndarray], evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]
) -> Sequence[Any]:
    return [
        fit(arrays[index], out) if index in arrays else out for index, out in enumerate(evaluation.compute(eqn, ins))
    ]
