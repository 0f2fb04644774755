"""Long scans with every rounded result moved by one ulp, compiled: operation by operation each iteration costs its own.

A thousand steps of an LSTM and their gradient take 5 s operation by operation, of which compiling one step takes a
fifth, and then all runs of it nothing (jax 0.10.2, CPU). Each result moves as it does operation by operation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.programs.content import calls_foreign_code
from equiv.programs.eager import MOST_COMPILED
from equiv.programs.jaxpr import inner_jaxprs, read_scan, visit_equations
from equiv.programs.primitives import CALLS, EXACT
from equiv.programs.probes import numpy_dtype, ulp
from equiv.programs.reevaluation import Reevaluation

LONG_LOOP = 64
"""Number of iterations from which on a scan is compiled."""

COMPILED_DTYPES = frozenset({"float32", "float64", "bool", "int8", "int16", "int32", "int64"} | {
    f"uint{width}" for width in (8, 16, 32, 64)
})  # fmt: skip
"""Dtypes of a body that is compiled: of narrower floats XLA may keep more digits than the dtype has."""

MIX = 0x9E3779B97F4A7C15
"""An odd number whose multiples spread over all bits: 2^64 over the golden ratio."""


def rounding_unit(aval: Any) -> float:
    """The ulp of a float dtype; 0 of others."""
    dtype = str(getattr(aval, "dtype", ""))
    return ulp(numpy_dtype(dtype)) if dtype in INEXACT_DTYPES else 0.0


def is_rounded(eqn: Any) -> bool:
    """Whether an operation rounds: a cast does to a float dtype with fewer digits, though what follows may be wider."""
    if eqn.primitive.name != "convert_element_type":
        return eqn.primitive.name not in EXACT
    before, after = (rounding_unit(atom.aval) for atom in (eqn.invars[0], eqn.outvars[0]))
    return 0 < before < after


@dataclass(frozen=True)
class NudgedScan:
    """A scan whose rounded results move by one ulp.

    Attributes:
        moved: number of results that move in an iteration.
        widths: the bits of their dtypes.
        length: number of iterations.
        reverse: whether the last slice comes first.
        compiled: operands, factors by width, and salts by width, to results.
    """

    moved: int
    widths: frozenset[int]
    length: int
    reverse: bool
    compiled: Callable[..., Sequence[Any]]

    def run(self, ins: Sequence[Any], salt: int, count: int) -> Sequence[Any]:
        """Run it.

        Args:
            ins: the operands of the equation.
            salt: by which results move otherwise where inputs do.
            count: number of results that were moved before.
        """
        numbers = np.arange(count + 1, count + 1 + self.length * self.moved, dtype=np.uint64)
        operations = (numbers * np.uint64(MIX)).reshape(self.length, self.moved)
        operations = operations[::-1] if self.reverse else operations
        factors = {
            width: (operations >> np.uint64(64 - width) | np.uint64(1)).astype(f"uint{width}") for width in self.widths
        }
        salts = {width: np.asarray(salt % 2**width, f"uint{width}") for width in self.widths}
        return list(map(np.asarray, self.compiled(list(ins), factors, salts)))


@lru_cache(maxsize=MOST_COMPILED)
def nudged_scan(eqn: Any) -> NudgedScan | None:
    """A scan to be compiled; None: it is short, or something in it has to be run operation by operation."""
    loop = read_scan(eqn)
    equations = [inner for _, inner in visit_equations(loop.body)]
    if loop.length < LONG_LOOP or calls_foreign_code(loop.body) or not all(map(_is_plain, equations)):
        return None
    results = [var.aval.dtype for inner in equations if inner.primitive.name not in CALLS and is_rounded(inner)
               for var in inner.outvars if str(var.aval.dtype) in INEXACT_DTYPES]  # fmt: skip
    if not results:
        return None

    def run(ins: list[Any], factors: Mapping[int, Any], salts: Mapping[int, Any]) -> Sequence[Any]:
        fixed, start, scanned = loop.split(ins)

        def step(carry: tuple[Any, ...], slices: tuple[list[Any], Mapping[int, Any]]) -> tuple[Any, Any]:
            outs = _TracedNudges(slices[1], salts).run(loop.body, [*fixed, *carry, *slices[0]])
            return tuple(outs[: loop.carries]), tuple(outs[loop.carries :])

        start = tuple(map(jnp.asarray, start))
        carry, stacked = lax.scan(step, start, (scanned, factors), loop.length, loop.reverse)
        return [*carry, *stacked]

    widths = frozenset(8 * dtype.itemsize for dtype in results)
    return NudgedScan(len(results), widths, loop.length, loop.reverse, jax.jit(run))


def _is_plain(eqn: Any) -> bool:
    """Whether an equation is an operation or a call on plain arrays, without effects."""
    atoms = (*eqn.invars, *eqn.outvars)
    if eqn.effects or not all(str(getattr(atom.aval, "dtype", "")) in COMPILED_DTYPES for atom in atoms):
        return False
    return not inner_jaxprs(eqn) or eqn.primitive.name in CALLS


@dataclass
class _TracedNudges(Reevaluation):
    """Evaluation under the current trace that moves every rounded float result by one ulp.

    Attributes:
        factors: width to a factor for each result.
        salts: width to what results are salted with.
        count: number of results that were moved.
    """

    factors: Mapping[int, Any]
    salts: Mapping[int, Any]
    count: int = field(default=0, init=False)

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = super().equation(eqn, ins)
        return list(map(self._nudge, outs)) if is_rounded(eqn) else outs

    def _nudge(self, value: Any) -> Any:
        if str(value.dtype) not in INEXACT_DTYPES:
            return value
        dtype, width = np.dtype(value.dtype), 8 * value.dtype.itemsize
        kind = np.dtype(f"uint{width}").type
        bits = lax.bitcast_convert_type(value, kind) ^ self.salts[width]
        for factor in (kind(MIX >> (64 - width) | 1), self.factors[width][self.count]):
            bits = (bits ^ (bits >> kind(width // 2))) * factor
        self.count += 1
        ulp_bits = np.asarray(ulp(dtype), dtype).view(kind)
        signed = lax.bitcast_convert_type(bits & kind(1 << (width - 1)) | ulp_bits, dtype)
        return (signed + dtype.type(1)) * value
