"""Causes: another constant, such as an epsilon, a scale, a rate or the value behind a mask."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import (
    Pair,
    Rank,
    Scene,
    Trial,
    always,
    edit_operand,
    fill,
    leaf_of,
    near_operations,
    scalar_operands,
)
from equiv.comparison.explain.constant_uses import ConstantUse
from equiv.comparison.explain.recording import Changes, Edit, Operation, RecordingEvaluation
from equiv.core.first_difference import is_backward
from equiv.programs.primitives import ADDITIONS, COMPARISONS

ROOTS = frozenset(["sqrt", "rsqrt", "pow", "div", "log", "integer_pow", "cbrt"])
"""What an epsilon is added for."""

SMALL = 1e-2
"""Largest constant that is taken for an epsilon."""

HUGE = 1e3
"""Smallest one that is taken for the value behind a mask."""

FAMILIES = (
    frozenset(("add", "add_any", "sub")), frozenset(("mul", "div")), frozenset(("max", "min", "clamp")), COMPARISONS
)  # fmt: skip
"""Operations that take the same kind of constant."""

LIMITS = frozenset(["max", "min", "clamp"])
"""What an array is clipped by."""

SETTINGS = {
    "tree_update_moment_per_elem_norm": "b2",
    "tree_update_moment": "b1",
    "update_moment_per_elem_norm": "b2",
    "update_moment": "b1",
    "clip_by_global_norm": "the clipping norm",
    "clip": "the clipping limit",
    "add_decayed_weights": "the weight decay",
    "scale_by_learning_rate": "the learning rate",
    "scale": "the factor",
    "smooth_labels": "the smoothing",
    "exponential_decay": "the learning rate",
    "cosine_decay_schedule": "the learning rate",
    "linear_schedule": "the learning rate",
    "polynomial_schedule": "the learning rate",
}
"""Functions of optax to what their constants are."""


def other_constants(scene: Scene) -> Iterator[Trial]:
    """Yield every constant near the divergence replaced by each one that only the reference has.

    It is replaced there, and everywhere where the same line gives it; with a share, `1 - it` is, too.
    """
    theirs = _constants(scene.right, near_operations(scene.right, scene.pair.candidate))
    ours = _constants(scene.left, near_operations(scene.left, scene.pair.reference)) + _wide_limits(scene, theirs)
    known = {float(f"{number:.9g}") for _, _, number in theirs}
    wanted_too = {float(f"{number:.9g}") for _, _, number in ours}
    seen: set[tuple[object, ...]] = set()
    for operation, index, number in (one for one in theirs if not _follows(scene, one[0])):
        for other, _, wanted in ours:
            key = (operation.key, index, wanted)
            if (
                math.isclose(wanted, number, rel_tol=1e-9)
                or key in seen
                or not _are_related(operation.primitive, other.primitive)
            ):
                continue
            if operation.primitive != other.primitive and {operation.primitive, other.primitive} == {"mul", "div"}:
                continue
            seen.add(key)
            noun = name_constant(scene.right, operation, number)
            rank = Rank.CONSTANT if _is_new(wanted, known) and _is_new(number, wanted_too) else Rank.SHARED_CONSTANT
            text = f"{noun} {wanted:.6g} in place of {number:.6g}"
            yield Trial(text, always(edit_operand(operation, index, partial(_fill, wanted))), rank, operation)
            if rank == Rank.CONSTANT:
                yield from _everywhere(scene, operation, number, wanted, noun)
    yield from _other_counts(scene, theirs)


def _other_counts(scene: Scene, theirs: Sequence[tuple[Operation, int, float]]) -> Iterator[Trial]:
    """Yield the divisor of a sum as the number of what is summed, or one less: a biased or an unbiased variance."""
    record = scene.right.recording
    for operation, index, number in theirs:
        if operation.primitive != "div" or index != 1:
            continue
        summed = record.maker_of(operation.ins[0])
        while summed is not None and summed.primitive in ("broadcast_in_dim", "reshape"):
            summed = record.maker_of(summed.ins[0])
        if summed is None or summed.primitive != "reduce_sum":
            continue
        count = math.prod(record.shapes[summed.ins[0]]) // max(1, math.prod(record.shapes[summed.outs[0]]))
        wanted = count - 1 if math.isclose(number, count) else count
        kind = "biased" if wanted == count else "unbiased"
        text = f"the divisor {wanted} in place of {number:.6g}, {kind}"
        change = always(edit_operand(operation, index, partial(_fill, wanted)))
        if wanted > 0 and math.isclose(number, wanted, abs_tol=1.5):
            yield Trial(text, change, Rank.FUNCTION, operation, shown=Pair(scene.pair.reference, operation))


def _follows(scene: Scene, operation: Operation) -> bool:
    """Whether a constant is of a backward pass whose loss differs, too: it follows from what differs there."""
    forward = any(name.kind in ("loss", "output") for name in scene.alignment.refuted)
    return forward and is_backward(str(operation.eqn.source_info.name_stack))


def _wide_limits(scene: Scene, theirs: Sequence[tuple[Operation, int, float]]) -> list[tuple[Operation, int, float]]:
    """The limits of the reference, near or not: where they are wide, what they clip is as it was before."""
    kinds = {operation.primitive for operation, _, _ in theirs} & LIMITS
    return [
        (use.operation, use.index, use.number)
        for use in scene.left.constants
        if use.operation.primitive in kinds and np.isfinite(use.number)
    ]


def _is_new(number: float, known: Set[float]) -> bool:
    return float(f"{number:.9g}") not in known


def _everywhere(scene: Scene, operation: Operation, number: float, wanted: float, noun: str) -> Iterator[Trial]:
    """Yield a constant replaced at all operations of the module, of the line, and of the library's line."""
    uses = scene.right.constants
    own = next((use for use in uses if use.operation.key == operation.key), None)
    if own is None:
        return
    seen: set[frozenset[object]] = set()
    keeps = any(leaf_of(scene.right, value) is not None for value in operation.ins)
    share = SETTINGS.get(own.function) or ("the momentum" if keeps else "the share")
    for mapping, words in _mappings(operation, number, wanted, noun, share):
        for width, belongs in enumerate((_is_of_module, _is_of_line, _is_of_library_line)):
            chosen = [use for use in uses if belongs(own, use) and _mapped(mapping, use.number) is not None]
            key = frozenset(use.operation.key for use in chosen)
            if len(key) < 2 or key in seen:
                continue
            seen.add(key)
            text = f"{words} at {len(key)} places"
            rank = Rank.CONSTANTS if len(mapping) == 1 else Rank.SHARES
            yield Trial(text, always(replace_constants(chosen, mapping)), rank, operation, width, places=len(key))


def _mappings(
    operation: Operation, number: float, wanted: float, noun: str, share: str
) -> Iterator[tuple[dict[float, float], str]]:
    """Yield what replaces what: the constant alone; with what is left of 1, where it is a share."""
    yield {number: wanted}, f"{noun} {wanted:.6g} in place of {number:.6g}"
    if operation.primitive in LIMITS and number and wanted:
        size = math.copysign(wanted, number)
        yield {number: size, -number: -size}, f"the limits {abs(wanted):.6g} in place of {abs(number):.6g}"
    if operation.primitive == "mul" and 0 < number < 1 and 0 < wanted < 1:
        for asked in dict.fromkeys((wanted, 1 - wanted)):
            pair = {number: asked, 1 - number: 1 - asked}
            before = max(number, 1 - number)
            yield pair, f"{share} {pair[_near(pair, before)]:.6g} in place of {before:.6g}"


def _near(mapping: Mapping[float, float], number: float) -> float:
    return min(mapping, key=lambda one: abs(one - number))


def _mapped(mapping: Mapping[float, float], number: float) -> float | None:
    return next((new for old, new in mapping.items() if math.isclose(old, number, rel_tol=1e-9)), None)


def _is_of_module(own: ConstantUse, other: ConstantUse) -> bool:
    return own.module == other.module and own.file == other.file


def _is_of_line(own: ConstantUse, other: ConstantUse) -> bool:
    return (own.user_line, own.file) == (other.user_line, other.file)


def _is_of_library_line(own: ConstantUse, other: ConstantUse) -> bool:
    return own.line == other.line and own.operation.primitive == other.operation.primitive


def replace_constants(uses: Sequence[ConstantUse], mapping: Mapping[float, float]) -> Changes:
    """The changes that replace constants at all of these operations."""
    by_place: dict[tuple[Any, ...], list[ConstantUse]] = {}
    for use in uses:
        by_place.setdefault(use.operation.key, []).append(use)
    edits = []
    for own in by_place.values():
        numbers = {use.index: _mapped(mapping, use.number) for use in own}
        edits.append(Edit(own[0].operation.place, partial(_with_numbers, numbers)))
    return Changes(tuple(edits))


def _with_numbers(
    numbers: Mapping[int, float | None], evaluation: RecordingEvaluation, eqn: Any, ins: list[Any]
) -> Sequence[Any]:
    given = list(ins)
    for index, number in numbers.items():
        if number is not None:
            given[index] = fill(ins[index], number)
    return evaluation.compute(eqn, given)


def other_settings(scene: Scene) -> Iterator[Trial]:
    """Yield what a line of a library has as its constant in the reference, in place of what it has in the candidate.

    As of an optimizer, whose lines are those of both ports. Constants that follow from each other, as `b2` and
    `1 - b2`, are replaced together.
    """
    ours, theirs = (_settings(side) for side in (scene.left, scene.right))
    groups: dict[tuple[float, float], list[ConstantUse]] = {}
    mappings: dict[tuple[float, float], dict[float, float]] = {}
    for key, uses in theirs.items():
        before, after = ({use.number for use in side} for side in (uses, ours.get(key, [])))
        if len(before) != 1 or len(after) != 1:
            continue
        (number,), (wanted,) = before, after
        if math.isclose(number, wanted, rel_tol=1e-9):
            continue
        group = _representative(number, wanted)
        groups.setdefault(group, []).extend(uses)
        mappings.setdefault(group, {})[number] = wanted
    for group, uses in groups.items():
        yield _make_setting(scene.right, uses, mappings[group])
    functions: dict[tuple[str, object], list[ConstantUse]] = {}
    for use in (use for uses in groups.values() for use in uses):
        functions.setdefault((use.function, use.user_line), []).append(use)
    for (function, _), uses in functions.items():
        merged = {number: new for mapping in mappings.values() for number, new in mapping.items()}
        own = {use.number: merged[use.number] for use in uses}
        if function and len({_representative(number, new) for number, new in own.items()}) > 1:
            yield _make_setting(scene.right, uses, own)


def _make_setting(side: AlignedSide, uses: Sequence[ConstantUse], mapping: Mapping[float, float]) -> Trial:
    noun, function = _setting(side, uses)
    before = max(mapping, key=abs)
    after = mapping[before]
    if function == "scale" and before < 0 and after < 0:
        noun, before, after = "the learning rate", -before, -after
    text = f"{noun} {after:.6g} in place of {before:.6g}{f' in `{function}`' if function else ''}"
    places = len({use.operation.key for use in uses})
    return Trial(text, always(replace_constants(uses, mapping)), Rank.CONSTANT, uses[0].operation, places=places)


def _settings(side: AlignedSide) -> dict[tuple[object, ...], list[ConstantUse]]:
    """Constants by the library's line and the place among the operands; none of the user's own lines, none of a
    backward pass, which follow from the forward one.
    """
    found: dict[tuple[object, ...], list[ConstantUse]] = {}
    for use in side.constants:
        if use.is_of_library and not is_backward(str(use.operation.eqn.source_info.name_stack)):
            found.setdefault((use.line, use.operation.primitive, use.index), []).append(use)
    return found


def _representative(number: float, wanted: float) -> tuple[float, float]:
    """The same for what follows from each other: wanted, then what it replaces."""
    ways = [(wanted, number), (1 - wanted, 1 - number), (-wanted, -number)]
    return max(((round(a, 12), round(b, 12)) for a, b in ways), key=lambda way: (way[1] < 1, way[1]))


def _setting(side: AlignedSide, uses: Sequence[ConstantUse]) -> tuple[str, str]:
    """What a constant is, and the function of the library that has it."""
    for use in uses:
        if noun := SETTINGS.get(use.function):
            return noun, use.function
    first = uses[0]
    return name_constant(side, first.operation, first.number), first.function


def _fill(number: float, array: Any) -> np.ndarray:
    return fill(array, number)


def _constants(side: AlignedSide, near: tuple[Operation, ...]) -> list[tuple[Operation, int, float]]:
    return [
        (operation, index, number)
        for operation in near
        if len(operation.ins) > 1 and not operation.kind
        for index, number in scalar_operands(side, operation)
    ]


def _are_related(one: str, other: str) -> bool:
    return one == other or any(one in family and other in family for family in FAMILIES)


def name_constant(side: AlignedSide, operation: Operation, number: float) -> str:
    """What a constant is called by those who write it."""
    name = operation.primitive
    after = {other.primitive for out in operation.outs for other in side.readers.get(out, ())}
    if name in ADDITIONS | {"max"} and 0 < abs(number) <= SMALL and (after & ROOTS or name in ADDITIONS):
        return "epsilon"
    if name == "select_n" or abs(number) >= HUGE:
        return "the value behind the mask"
    if name in ("mul", "div"):
        return "the factor" if name == "mul" else "the divisor"
    if name in COMPARISONS:
        return "the threshold"
    return "the exponent" if name == "pow" else "the constant"
