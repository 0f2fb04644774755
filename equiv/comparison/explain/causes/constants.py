"""Causes: another constant, such as an epsilon, a scale, a rate or the value behind a mask."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide
from equiv.comparison.explain.causes.trial import (
    Scene,
    Trial,
    always,
    edit_operand,
    near_operations,
    scalar_operands,
)
from equiv.comparison.explain.recording import Operation
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


def other_constants(scene: Scene) -> Iterator[Trial]:
    """Yield every constant near the divergence replaced by each one that only the reference has."""
    ours = _constants(scene.left, near_operations(scene.left, scene.pair.reference))
    theirs = _constants(scene.right, near_operations(scene.right, scene.pair.candidate))
    known = {number for _, _, number in theirs}
    seen: set[tuple[object, ...]] = set()
    for operation, index, number in theirs:
        for other, _, wanted in ours:
            key = (operation.key, index, wanted)
            if wanted == number or key in seen or not _are_related(operation.primitive, other.primitive):
                continue
            if operation.primitive != other.primitive and {operation.primitive, other.primitive} == {"mul", "div"}:
                continue
            seen.add(key)
            noun = _noun(scene.right, operation, number)
            fresh = wanted not in known
            text = f"{noun} {wanted:.6g} in place of {number:.6g}"
            yield Trial(
                text, always(edit_operand(operation, index, partial(_fill, wanted))), 1 + 3 * (not fresh), operation
            )


def _fill(number: float, array: np.ndarray) -> np.ndarray:
    return np.full_like(array, number)


def _constants(side: AlignedSide, near: tuple[Operation, ...]) -> list[tuple[Operation, int, float]]:
    return [
        (operation, index, number)
        for operation in near
        if len(operation.ins) > 1 and not operation.kind
        for index, number in scalar_operands(side, operation)
    ]


def _are_related(one: str, other: str) -> bool:
    return one == other or any(one in family and other in family for family in FAMILIES)


def _noun(side: AlignedSide, operation: Operation, number: float) -> str:
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
