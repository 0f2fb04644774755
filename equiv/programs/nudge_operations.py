"""Programs in which every rounded operation's result moves by one ulp: what a port's own way to compute may lose.

Inputs moved by one ulp show how sensitive a function is, but not always how a program computes it: 1 + x - 1 loses
digits of a small x whichever way x moves. Where every result moves (Monte Carlo arithmetic: Parker, Pierce and Eggert,
Computing in Science & Engineering 2(4), 2000), that shows too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.programs.content import is_key
from equiv.programs.eager import EagerEvaluation
from equiv.programs.jaxpr import visit_equations
from equiv.programs.joined_programs import Evaluation, scan_eagerly
from equiv.programs.nudge_loops import MIX, is_rounded, nudged_scan, rounding_unit
from equiv.programs.probes import split_parts, ulp
from equiv.programs.program import Program, Programs


def evaluate_nudged(closed: Any, arrays: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr with every rounded float result moved by one ulp, up or down by bits of it and of the inputs.

    Operation by operation: XLA takes 14, 29 and 77 s to compile the moved train step of a decoder of 2, 4 and 8 layers
    of width 64 (jax 0.10.2, two CPU cores), and longer the larger it is.

    Call it inside `jax.enable_x64(True)` for a float64 program.

    Returns:
        Numpy arrays; keys stay arrays of jax.
    """
    with np.errstate(all="ignore"):
        values = _NudgedOperations(_salt(arrays)).run(closed, arrays)
    return [value if is_key(value) else np.asarray(value) for value in values]


NUDGED = Evaluation(evaluate_nudged, scan_eagerly)
"""Evaluation of all programs of a port with every rounded result moved."""


def find_narrow_dtypes(program: Program) -> frozenset[str]:
    """The precisions in which it computes that are narrower than those of all its inputs and outputs.

    Inputs and outputs do not explain these. Each is a dtype, or the bits of a `reduce_precision`.
    """
    avals = (*program.jaxpr.in_avals, *program.jaxpr.out_avals)
    largest = max(map(rounding_unit, avals), default=0.0)
    found: set[str] = set()
    for _, eqn in visit_equations(program.jaxpr):
        found.update(str(var.aval.dtype) for var in eqn.outvars if rounding_unit(var.aval) > largest)
        if eqn.primitive.name == "reduce_precision":
            found.add(f"{eqn.params['exponent_bits']} and {eqn.params['mantissa_bits']} bits")
    return frozenset(found)


def _salt(arrays: Sequence[Any]) -> np.uint32:
    """A whole number that changes with every float input, so that results move otherwise where inputs do."""
    salt = 0
    for array in arrays:
        if not is_key(array) and str(array.dtype) in INEXACT_DTYPES:
            bits = _bits(np.asarray(array))
            folded = bits ^ (bits >> bits.dtype.type(32)) if bits.dtype.itemsize == 8 else bits
            salt += int(np.sum(folded.astype("uint32") * np.uint32(2654435761), dtype="uint32"))
    return np.uint32(salt % 2**32)


def _bits(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "c":
        array = np.stack(split_parts(array))
    return array.view(f"uint{8 * array.dtype.itemsize}")


def keep_programs(programs: Programs, names: frozenset[Any], other: Programs | None = None) -> Programs:
    """Keep the programs of a port whose operations may be nudged; training is kept or left out whole.

    Those that narrow are left out, unless the other port narrows to the same dtypes there: a value next to a rounding
    boundary of the narrow dtype jumps by an ulp of it, which is rounding only where both compute in that dtype.

    Args:
        programs: of one port, in one precision.
        names: of programs; that of the train step keeps `begin` too.
        other: those of the port that it is compared with; None: they are not known.
    """
    theirs = {} if other is None else {part.name: part for part in (*other.parts, other.step) if part is not None}

    def is_kept(program: Program) -> bool:
        if program.name not in names:
            return False
        narrow, twin = find_narrow_dtypes(program), theirs.get(program.name)
        return not narrow or (twin is not None and narrow == find_narrow_dtypes(twin))

    parts = tuple(filter(is_kept, programs.parts))
    trained = programs.step is not None and is_kept(programs.step)
    begin, step = (programs.begin, programs.step) if trained else (None, None)
    return replace(programs, parts=parts, begin=begin, step=step)


class _NudgedOperations(EagerEvaluation):
    """Evaluation that moves every rounded float result by one ulp."""

    def __init__(self, salt: np.uint32) -> None:
        self.salt, self.count = salt, 0

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = super().equation(eqn, ins)
        return list(map(self._nudge, outs)) if is_rounded(eqn) else outs

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `scan`: a long one compiled, others iteration by iteration."""
        compiled = None if any(map(is_key, ins)) else nudged_scan(eqn)
        if compiled is None:
            return super().scan(eqn, ins)
        outs = compiled.run(ins, int(self.salt), self.count)
        self.count += compiled.length * compiled.moved
        return outs

    def _nudge(self, value: Any) -> Any:
        if is_key(value) or str(value.dtype) not in INEXACT_DTYPES:
            return value
        self.count += 1
        array, salt, operation = np.asarray(value), int(self.salt), self.count * MIX % 2**64
        if array.dtype.kind != "c":
            return _nudge(array, salt, operation)
        # Both parts by an ulp of the absolute value: a product rounds that much in either.
        size = np.abs(array)
        moves = (_nudge(size, salt ^ part, operation) - size for part in (0, 1))
        return (array + next(moves) + 1j * next(moves)).astype(array.dtype)


def _nudge(array: np.ndarray, salt: int, operation: int) -> np.ndarray:
    """Move every element by one ulp, up or down by a hash of its bits, of the salt and of the operation."""
    width = 8 * array.dtype.itemsize
    kind = np.dtype(f"uint{width}").type
    bits = np.asarray(_bits(array) ^ kind(salt % 2**width))
    mixed = np.empty_like(bits)
    for factor in (MIX, operation):
        np.right_shift(bits, kind(width // 2), out=mixed)
        bits ^= mixed
        bits *= kind(factor >> (64 - width) | 1)
    bits &= kind(1 << (width - 1))  # a sign, with which an ulp becomes a factor: in place, which is a third of the time
    bits |= _bits(np.asarray(ulp(array.dtype), array.dtype))
    factors = bits.view(array.dtype)
    factors += array.dtype.type(1)
    factors *= array
    return factors
