"""Causes: an operation too many, one left out, other operands, or the same operation with other parameters."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from equiv.comparison.explain.causes.trial import (
    Pair,
    Rank,
    Scene,
    Trial,
    always,
    as_array,
    edit_at,
    edit_operand,
    fit,
    is_close,
    leaf_of,
)
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.compat import bind_equation
from equiv.programs.jaxpr import locate_equation
from equiv.programs.primitives import ADDITIONS

LARGEST_ORDER = 4
"""Most axes of an operand whose orders are tried."""


def extra_operation(scene: Scene) -> Iterator[Trial]:
    """Yield the candidate's operation left out: one of its operands passes through."""
    operation = scene.pair.candidate
    if operation is None or operation.kind or len(operation.ins) > 2:
        return
    shapes = scene.right.recording.shapes
    for index, value in enumerate(operation.ins):
        record = scene.right.recording
        if shapes[value] == shapes[operation.outs[0]] and value not in record.numbers:
            rest = [one for place, one in enumerate(operation.ins) if place != index]
            text = f"no {_noun(scene, True, operation, rest)}"
            rank = (
                Rank.LEFT_OUT
                if not rest or (record.moving[rest[0]] and leaf_of(scene.right, rest[0]) is None)
                else Rank.EXTRA
            )
            yield Trial(text, always(edit_at(operation, partial(_pass_operand, index))), rank, operation, index, False)


def _pass_operand(index: int, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
    return [ins[index]]


def _noun(scene: Scene, candidate: bool, operation: Operation, others: Sequence[int]) -> str:
    """What an operation is, by what it takes besides: a bias, a scale, a residual."""
    side = scene.right if candidate else scene.left
    name = operation.primitive
    leaf = next(filter(None, (leaf_of(side, value) for value in others)), None)
    if leaf is not None:
        return f"{'sum' if name in ADDITIONS else name} with `{leaf}`"
    number = next((side.recording.numbers[value] for value in others if value in side.recording.numbers), None)
    if number is not None:
        return f"{name} with {number:.6g}"
    return "residual sum" if name in ADDITIONS and others else name


def missing_operation(scene: Scene) -> Iterator[Trial]:
    """Yield the reference's operation applied where the candidate has its operands, and goes on without it."""
    operation = scene.pair.reference
    if operation is None or operation.kind or not operation.ins or len(operation.outs) != 1:
        return
    shapes, record = scene.left.recording.shapes, scene.left.recording
    for index, value in enumerate(operation.ins):
        if shapes[value] != shapes[operation.outs[0]] or not record.moving[value]:
            continue
        twin = next(iter(scene.twins_of(value)), None)
        others = [_source(scene, one) for place, one in enumerate(operation.ins) if place != index]
        if twin is None or any(one is None for one in others):
            continue
        rest = [one for place, one in enumerate(operation.ins) if place != index]
        text = f"the {_noun(scene, False, operation, rest)} that {scene.names[1]} leaves out"
        sources = [source for source in others if source is not None]
        fixed = any(value is None and record.moving[own] for value, own in sources)
        for rank, places in ((Rank.LEFT_OUT, _readers(scene, twin)), (Rank.REBUILT, _makers(scene, twin))):
            if places:
                change = partial(_with_operation, scene, operation, index, sources, places, twin)
                shown = Pair(operation, _shown_without(scene, value, twin, operation) or places[0])
                yield Trial(text, change, rank, places[0], in_place=False, shown=shown, fixed=fixed)


def _shown_without(scene: Scene, value: int, twin: int, operation: Operation) -> Operation | None:
    """Where the candidate leaves an operation out: where its operand is made, if the reference's has one line with it.

    As of a mean, whose division is left out of a sum; else where that operand is read instead.
    """
    ours, theirs = scene.left.recording.maker_of(value), scene.right.recording.maker_of(twin)
    if ours is None or theirs is None or theirs.kind:
        return None
    lines = [locate_equation(one.place)[1] for one in (ours, operation)]
    return theirs if lines[0] is not None and lines[1] is not None and lines[0].short == lines[1].short else None


Source = tuple[int | None, int]
"""A value of the candidate, else one of the reference that depends on nothing but leaves and constants."""


def _source(scene: Scene, value: int) -> Source | None:
    record = scene.left.recording
    twin = next(iter(scene.twins_of(value)), None) if record.moving[value] else None
    if twin is not None:
        return twin, value
    return (None, value) if not record.moving[value] or leaf_of(scene.left, value) is not None else None


def _readers(scene: Scene, value: int) -> tuple[Operation, ...]:
    """The operations where the candidate's chains begin and which read a value."""
    return tuple(one for one in scene.right.frontier if value in one.ins)


def _makers(scene: Scene, value: int) -> tuple[Operation, ...]:
    maker = scene.right.recording.maker_of(value)
    return () if maker is None or maker.kind else (maker,)


def _with_operation(
    scene: Scene,
    operation: Operation,
    index: int,
    sources: Sequence[Source],
    places: Sequence[Operation],
    twin: int,
    probe: int,
) -> Changes:
    """The changes that apply an operation of the reference to a value of the candidate, where it is read or made."""
    record = scene.right.recording
    makers = {value: record.maker_of(value) for value, _ in sources if value is not None}

    def read(evaluation: RecordingEvaluation, source: Source) -> Any:
        value, own = source
        if value is None:
            return scene.ours[probe][own]
        maker = makers[value]
        if maker is None:
            return evaluation.given[record.inputs[value]]
        return evaluation.stash[maker.place][maker.outs.index(value)]

    def applied(evaluation: RecordingEvaluation, array: Any) -> Any:
        given = [read(evaluation, source) for source in sources]
        given.insert(index, array)
        shaped = [
            fit(one, np.empty(atom.aval.shape, atom.aval.dtype))
            for one, atom in zip(given, operation.eqn.invars, strict=True)
        ]
        return fit(evaluation.compute(operation.eqn, shaped)[0], array)

    def at_reader(one: Operation, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        changed = [
            applied(evaluation, array) if value == twin else array for value, array in zip(one.ins, ins, strict=True)
        ]
        return evaluation.compute(eqn, changed)

    def at_maker(one: Operation, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = list(evaluation.compute(eqn, ins))
        place = one.outs.index(twin)
        outs[place] = applied(evaluation, outs[place])
        return outs

    edits = tuple(Edit(one.place, partial(at_reader if twin in one.ins else at_maker, one)) for one in places)
    return Changes(edits, used=frozenset(maker.place for maker in makers.values() if maker is not None))


def other_parameters(scene: Scene) -> Iterator[Trial]:
    """Yield the candidate's operation with those parameters of the reference's that differ."""
    ours, theirs = scene.pair.reference, scene.pair.candidate
    if ours is None or theirs is None or ours.kind or theirs.kind or ours.primitive != theirs.primitive:
        return
    params = {
        key: value
        for key, value in ours.eqn.params.items()
        if key in theirs.eqn.params and str(value) != str(theirs.eqn.params[key]) and not hasattr(value, "eqns")
    }
    shown = {key: value for key, value in params.items() if key not in UNSAID}
    if shown:
        words = ", ".join(f"{key} {value} in place of {theirs.eqn.params[key]}" for key, value in shown.items())
        yield Trial(
            f"{theirs.primitive} with {words}",
            always(edit_at(theirs, partial(_rebind, params))),
            Rank.PARAMETER,
            theirs,
        )


UNSAID = frozenset(["sharding", "out_sharding", "precision", "preferred_element_type", "name"])
"""Parameters that change no number in float64."""


def _rebind(params: dict[str, Any], evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Sequence[Any]:
    return bind_equation(eqn, ins, {**eqn.params, **params})


def other_order(scene: Scene) -> Iterator[Trial]:
    """Yield an operand of the candidate's flipped, or with its axes in another order, as the reference takes it."""
    ours, theirs = scene.pair.reference, scene.pair.candidate
    if ours is None or theirs is None or ours.kind or theirs.kind or ours.primitive != theirs.primitive:
        return
    for index, value in enumerate(theirs.ins[: len(ours.ins)]):
        given, wanted = scene.theirs[0].get(value), scene.ours[0].get(ours.ins[index])
        if given is None or wanted is None or given.size < 2 or given.ndim > LARGEST_ORDER or is_close(given, wanted):
            continue
        leaf = leaf_of(scene.right, value)
        what = f"`{leaf}`" if leaf is not None else f"operand {index + 1} of {theirs.primitive}"
        for words, change in _orders(given.ndim):
            made = change(given)
            if made.shape == given.shape and is_close(made, wanted):
                yield Trial(f"{what} {words}", always(edit_operand(theirs, index, change)), Rank.LAYOUT, theirs)
        yield from _other_places(scene, value, given, wanted, what)
    yield from _transposed_squares(scene, theirs)


def _other_places(scene: Scene, value: int, given: np.ndarray, wanted: np.ndarray, what: str) -> Iterator[Trial]:
    """Yield a value of the candidate with the elements of one axis in the order that the reference has."""
    maker = scene.right.recording.maker_of(value)
    if maker is None or maker.kind or given.shape != wanted.shape or given.dtype.kind != "f":
        return
    for axis, size in enumerate(given.shape):
        mine, others = (np.moveaxis(one, axis, 0).reshape(size, -1) for one in (given, wanted))
        firsts = [np.flatnonzero((np.abs(mine - row) <= 1e-9 * np.abs(row).max()).all(axis=1)) for row in others]
        if size < 2 or not all(len(found) == 1 for found in firsts):
            continue
        order = np.array([int(found[0]) for found in firsts])
        text = f"{what} with axis {axis} in the order that {scene.names[0]} has"
        change = always(edit_at(maker, partial(_take_result, maker.outs.index(value), order, axis)))
        yield Trial(text, change, Rank.LAYOUT, maker)


def _take_result(
    place: int, order: np.ndarray, axis: int, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]
) -> Sequence[Any]:
    outs = list(evaluation.compute(eqn, ins))
    outs[place] = np.moveaxis(np.moveaxis(as_array(outs[place]), axis, 0)[order], 0, axis)
    return outs


def _transposed_squares(scene: Scene, theirs: Operation) -> Iterator[Trial]:
    """Yield each leaf that the candidate takes transposed, where its last two axes have one size."""
    for index, value in enumerate(theirs.ins):
        leaf, shape = leaf_of(scene.right, value), scene.right.recording.shapes[value]
        if leaf is not None and len(shape) >= 2 and shape[-1] == shape[-2]:
            change = partial(np.swapaxes, axis1=-1, axis2=-2)
            yield Trial(f"`{leaf}` transposed", always(edit_operand(theirs, index, change)), Rank.GUESS, theirs)


def _orders(rank: int) -> Iterator[tuple[str, Any]]:
    for order in itertools.permutations(range(rank)):
        if order != tuple(range(rank)):
            words = "transposed" if rank == 2 else f"with its axes in the order {order}"
            yield words, partial(np.transpose, axes=order)
    if rank > 2:  # a transposed convolution as the gradient of one: another kernel in both ways
        axes = tuple(range(rank - 2))
        yield (
            f"flipped along axes {', '.join(map(str, axes))} and with its last two axes exchanged",
            lambda array: np.flip(np.swapaxes(array, -1, -2), axes),
        )
    for count in range(1, rank + 1):
        for axes in itertools.combinations(range(rank), count):
            yield (
                f"flipped along {'axis' if count == 1 else 'axes'} {', '.join(map(str, axes))}",
                partial(np.flip, axis=axes),
            )
