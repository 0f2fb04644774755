"""Causes: another activation, a softmax over another axis, one left out, or one too many."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import (
    NEAR,
    Rank,
    Scene,
    Trial,
    always,
    as_array,
    fit,
    is_close,
    near_operations,
    sources_near,
)
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.programs.jaxpr import locate_equation

Function = Callable[[Any], Any]
"""Of an array of numpy; of one of jax under a trace, where a change is differentiated."""

_erf = np.vectorize(math.erf, otypes=[float])


def _on(array: Any) -> Any:
    """The functions of the library that an array is of."""
    return jnp if isinstance(array, Tracer) else np


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + _on(x).exp(-x))


def _gelu(x: Any) -> Any:
    erf = jax.scipy.special.erf if isinstance(x, Tracer) else _erf
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + _on(x).tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _elu(x: Any) -> Any:
    return _on(x).where(x > 0, x, _on(x).expm1(_on(x).minimum(x, 0)))


def _softmax(axis: int, x: Any) -> Any:
    found = _on(x).exp(x - x.max(axis=axis, keepdims=True))
    return found / found.sum(axis=axis, keepdims=True)


def _log_softmax(axis: int, x: Any) -> Any:
    moved = x - x.max(axis=axis, keepdims=True)
    return moved - _on(x).log(_on(x).exp(moved).sum(axis=axis, keepdims=True))


FUNCTIONS: Mapping[str, Function] = {
    "relu": lambda x: _on(x).maximum(x, 0),
    "tanh": lambda x: _on(x).tanh(x),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": _gelu,
    "gelu (tanh approximation)": _gelu_tanh,
    "leaky_relu": lambda x: _on(x).where(x > 0, x, 0.01 * x),
    "leaky_relu(0.2)": lambda x: _on(x).where(x > 0, x, 0.2 * x),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554804934193349852946 * _on(x).where(
        x > 0, x, 1.6732632423543772848170429916717 * _on(x).expm1(_on(x).minimum(x, 0))
    ),
    "softplus": lambda x: _on(x).logaddexp(x, 0),
    "relu6": lambda x: _on(x).clip(x, 0, 6),
    "hard_tanh": lambda x: _on(x).clip(x, -1, 1),
    "abs": lambda x: _on(x).abs(x),
    "exp": lambda x: _on(x).exp(x),
    "negation": lambda x: -x,
    "square": lambda x: _on(x).square(x),
    "sqrt": lambda x: _on(x).sqrt(x),
}  # fmt: skip
"""Functions that models apply to every element, by the names that libraries give them."""


def functions_of(rank: int) -> dict[str, Function]:
    """The known functions of an array with so many axes."""
    over = {
        f"{name} over axis {axis}": partial(function, axis)
        for name, function in (("softmax", _softmax), ("log_softmax", _log_softmax))
        for axis in range(rank)
    }
    return {**FUNCTIONS, **over}


def other_functions(scene: Scene) -> Iterator[Trial]:
    """Yield the known functions that the reference computes of a shared value, in place of what the candidate does."""
    ours = list(_applied(scene.left, scene.pair.reference, scene.ours[0]))
    theirs = list(_applied(scene.right, scene.pair.candidate, scene.theirs[0]))
    wanted = dict.fromkeys(name for _, _, name in ours) or dict.fromkeys(
        name for value, _, _ in theirs for name in functions_of(len(scene.right.recording.shapes[value]))
    )
    for source, end, name in theirs:
        rank = len(scene.right.recording.shapes[source])
        for other in wanted:
            function = functions_of(rank).get(other)
            if function is not None and other != name:
                # Not seen in the reference, it is only one of many: what is tried first is what was seen.
                rank = Rank.FUNCTION if ours else Rank.GUESS
                text = f"{other} in place of {name}"
                yield Trial(text, always(_replaced(scene, source, end, function)), rank, end)
                yield from _everywhere(scene, source, end, function, text, rank)
        if not ours:
            change = always(_replaced(scene, source, end, lambda x: x))
            yield Trial(f"no {name}", change, Rank.FUNCTION, end, in_place=False)
    if not theirs and scene.pair.candidate is not None:
        yield from _left_out(scene, ours)


def _left_out(scene: Scene, ours: list[tuple[int, Operation, str]]) -> Iterator[Trial]:
    """Yield a function of the reference applied to a shared value, which the candidate uses as it is."""
    for source, _, name in ours:
        twin = next(iter(scene.twins_of(source)), None)
        if twin is None:
            continue
        function = functions_of(len(scene.right.recording.shapes[twin])).get(name)
        readers = [one for one in scene.right.frontier if twin in one.ins]
        if function is not None and readers:
            changes = Changes(tuple(Edit(one.place, partial(_change_operands, function, one, twin)) for one in readers))
            yield Trial(
                f"{name}, which {scene.names[1]} leaves out", always(changes), Rank.FUNCTION, readers[0], in_place=False
            )


def _change_operands(
    function: Function, operation: Operation, value: int, evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]
) -> Any:
    given = [
        fit(function(as_array(array)), array) if number == value else array
        for number, array in zip(operation.ins, ins, strict=True)
    ]
    return evaluation.compute(eqn, given)


def _applied(
    side: AlignedSide, operation: Operation | None, arrays: Mapping[int, np.ndarray]
) -> Iterator[tuple[int, Operation, str]]:
    """Yield a shared value, the operation behind it that gives a known function of it, and its name."""
    if operation is None:
        return
    for source in sources_near(side, operation):
        given = arrays.get(source)
        if given is None or given.dtype.kind != "f" or given.size < 2 or not side.recording.moving[source]:
            continue
        with np.errstate(all="ignore"):
            known = {name: function(given) for name, function in functions_of(given.ndim).items()}
        for later in reversed(near_operations(side, operation)):
            made = arrays.get(later.outs[0])
            if made is None or made.shape != given.shape:
                continue
            name = next((one for one, array in known.items() if is_close(array, made)), None)
            if name is not None:
                yield source, later, name
                return


def _everywhere(
    scene: Scene, source: int, end: Operation, function: Function, text: str, rank: Rank
) -> Iterator[Trial]:
    """Yield a function replaced in every layer: where the same line of the user, or of a library, applies it."""
    steps = _steps_back(scene, source, end)
    if steps is None:
        return
    lines, written = locate_equation(end.place)[:2], _written(scene, source, end)
    twins: dict[tuple[Any, ...], tuple[int, Operation, bool]] = {}
    for other in scene.right.recording.operations:
        if other.primitive != end.primitive or other.key in twins or (begun := _follow(scene, other, steps)) is None:
            continue
        own = locate_equation(other.place)[:2]
        if own[0] == lines[0] and _written(scene, begun, other) == written:
            twins[other.key] = begun, other, own[1] == lines[1]
    counts = set[int]()
    for places in ([twin for twin in twins.values() if twin[2]], list(twins.values())):
        if len(places) < 2 or len(places) in counts:
            continue
        counts.add(len(places))
        changes = reduce(Changes.join, (_replaced(scene, start, last, function) for start, last, _ in places))
        yield Trial(f"{text} at {len(places)} places", always(changes), rank, end, places=len(places))


Step = tuple[str, int]
"""The primitive of an operation, and which of its operands is followed."""


def _steps_back(scene: Scene, source: int, end: Operation) -> list[Step] | None:
    """The way from the last operation of a function back to what it is of; None: it is not among these few."""
    waiting: deque[tuple[Operation, list[Step]]] = deque([(end, [])])
    seen = {end.outs[0]}
    while waiting:
        operation, steps = waiting.popleft()
        for index, value in enumerate(operation.ins):
            way = [*steps, (operation.primitive, index)]
            if value == source:
                return way
            maker = scene.right.recording.maker_of(value)
            if maker is not None and value not in seen and len(way) < NEAR:
                seen.add(value)
                waiting.append((maker, way))
    return None


def _follow(scene: Scene, end: Operation, steps: Sequence[Step]) -> int | None:
    """The value at the other end of such a way; None where the operations are others."""
    operation: Operation | None = end
    value = end.outs[0]
    for primitive, index in steps:
        if operation is None or operation.primitive != primitive or index >= len(operation.ins):
            return None
        value = operation.ins[index]
        operation = scene.right.recording.maker_of(value)
    return value


def _written(scene: Scene, source: int, end: Operation) -> str:
    """The operations from a value to the last of a function of it, as a formula; what does not depend on it is `_`."""
    record, known = scene.right.recording, {source: "x"}

    def describe(value: int, left: int) -> str:
        if value not in known:
            maker = record.maker_of(value)
            known[value] = f"{record.numbers[value]:.9g}" if value in record.numbers else "_"
            parts = [] if maker is None or not left else [describe(one, left - 1) for one in maker.ins]
            if maker is not None and any("x" in part for part in parts):
                known[value] = f"{maker.primitive.upper()}({', '.join(parts)})"
        return known[value]

    return describe(end.outs[0], NEAR)


def _replaced(scene: Scene, source: int, end: Operation, function: Function) -> Changes:
    """The changes that give the function of a shared value where the candidate has another function of it."""
    maker = scene.right.recording.maker_of(source)
    place = end.ins.index(source) if source in end.ins else None

    def changed(evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]) -> Any:
        if place is not None:
            given = ins[place]
        elif maker is not None:
            given = evaluation.stash[maker.place][maker.outs.index(source)]
        else:
            given = evaluation.given[scene.right.recording.inputs[source]]
        outs = list(evaluation.compute(eqn, ins))
        outs[0] = fit(function(as_array(given)), outs[0])
        return outs

    used = frozenset() if maker is None or place is not None else frozenset([maker.place])
    return Changes((Edit(end.place, changed),), used=used)
