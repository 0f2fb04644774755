"""Programs in which every rounded operation's result moves by one ulp: what a port's own way to compute may lose.

Inputs moved by one ulp show how sensitive a function is, but not always how a program computes it: 1 + x - 1 loses
digits of a small x whichever way x moves. Where every result moves (Monte Carlo arithmetic: Parker, Pierce and Eggert,
Computing in Science & Engineering 2(4), 2000), that shows too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.programs.jaxpr import visit_equations
from equiv.programs.primitives import EXACT
from equiv.programs.probes import numpy_dtype, ulp
from equiv.programs.program import Program, Programs
from equiv.programs.reevaluation import Reevaluation

MIX = 0x9E3779B97F4A7C15
"""An odd number whose multiples spread over all bits: 2^64 over the golden ratio."""


def nudge_operations(program: Program) -> Program:
    """Return the program with every rounded float result moved by one ulp, up or down by bits of it and of the inputs.

    Call it inside `jax.enable_x64(True)` for a float64 program.
    """

    def run(*arrays: Any) -> list[Any]:
        return _NudgedOperations(_salt(arrays)).run(program.jaxpr, arrays)

    structs = (jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals)
    return replace(program, jaxpr=jax.make_jaxpr(run)(*structs))


def narrows(program: Program) -> bool:
    """Whether it computes in a narrower dtype than all its inputs and outputs have, which does not explain that."""
    avals = (*program.jaxpr.in_avals, *program.jaxpr.out_avals)
    largest = max(map(_rounding_unit, avals), default=0.0)
    return any(
        eqn.primitive.name == "reduce_precision" or any(_rounding_unit(var.aval) > largest for var in eqn.outvars)
        for _, eqn in visit_equations(program.jaxpr)
    )


def _rounding_unit(aval: Any) -> float:
    dtype = str(getattr(aval, "dtype", ""))
    return ulp(numpy_dtype(dtype)) if dtype in FLOAT_DTYPES else 0.0


def _salt(arrays: Sequence[Any]) -> Any:
    """A whole number that changes with every float input, so that results move otherwise where inputs do."""
    salt = jnp.zeros((), "uint32")
    for array in arrays:
        if str(array.dtype) in FLOAT_DTYPES:
            bits = lax.bitcast_convert_type(array, f"uint{8 * numpy_dtype(str(array.dtype)).itemsize}")
            folded = bits ^ (bits >> 32) if bits.dtype.itemsize == 8 else bits
            salt = salt + jnp.sum(folded.astype("uint32") * jnp.uint32(2654435761), dtype="uint32")
    return salt


def nudge_programs(programs: Programs, names: frozenset[Any]) -> Programs:
    """Nudge the operations of some programs of a port and leave out the others; training is kept or left out whole.

    Those that narrow are left out: a value next to a rounding boundary of the narrow dtype jumps by an ulp of it.

    Args:
        programs: of one port, in one precision.
        names: of programs; that of the train step keeps `begin` too.
    """
    with jax.enable_x64(programs.float64):
        parts = tuple(nudge_operations(part) for part in programs.parts if part.name in names and not narrows(part))
        trained = programs.step is not None and programs.step.name in names and not narrows(programs.step)
        begin, step = (
            nudge_operations(part) if trained and part is not None else None for part in (programs.begin, programs.step)
        )
    return replace(programs, parts=parts, begin=begin, step=step)


class _NudgedOperations(Reevaluation):
    """Evaluation under the current trace that moves every rounded float result by one ulp."""

    def __init__(self, salt: Any) -> None:
        self.salt, self.count = salt, 0

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = super().equation(eqn, ins)
        return outs if eqn.primitive.name in EXACT else list(map(self._nudge, outs))

    def _nudge(self, value: Any) -> Any:
        dtype = str(getattr(value, "dtype", ""))
        if dtype not in FLOAT_DTYPES:
            return value
        self.count += 1
        width = 8 * numpy_dtype(dtype).itemsize
        kind = np.dtype(f"uint{width}")
        bits = lax.bitcast_convert_type(value, kind)
        bits = bits ^ self.salt.astype(kind)
        for factor in (MIX, self.count * MIX % 2**64):  # a hash of the value, another one for every operation
            bits = (bits ^ (bits >> kind.type(width // 2))) * kind.type(factor >> (64 - width) | 1)
        up = (bits >> kind.type(width - 1)).astype(bool)
        size = ulp(numpy_dtype(dtype))
        return value * jnp.where(up, jnp.asarray(1 + size, dtype), jnp.asarray(1 - size, dtype))
