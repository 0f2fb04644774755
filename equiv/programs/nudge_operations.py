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


def find_narrow_dtypes(program: Program) -> frozenset[str]:
    """The precisions in which it computes that are narrower than those of all its inputs and outputs.

    Inputs and outputs do not explain these. Each is a dtype, or the bits of a `reduce_precision`.
    """
    avals = (*program.jaxpr.in_avals, *program.jaxpr.out_avals)
    largest = max(map(_rounding_unit, avals), default=0.0)
    found: set[str] = set()
    for _, eqn in visit_equations(program.jaxpr):
        found.update(str(var.aval.dtype) for var in eqn.outvars if _rounding_unit(var.aval) > largest)
        if eqn.primitive.name == "reduce_precision":
            found.add(f"{eqn.params['exponent_bits']} and {eqn.params['mantissa_bits']} bits")
    return frozenset(found)


def _rounding_unit(aval: Any) -> float:
    dtype = str(getattr(aval, "dtype", ""))
    return ulp(numpy_dtype(dtype)) if dtype in FLOAT_DTYPES else 0.0


def _casts_to_narrower(eqn: Any) -> bool:
    """Whether it casts to a float dtype with fewer digits: what follows may be in a wider one again."""
    if eqn.primitive.name != "convert_element_type":
        return False
    before, after = (_rounding_unit(atom.aval) for atom in (eqn.invars[0], eqn.outvars[0]))
    return 0 < before < after


def _salt(arrays: Sequence[Any]) -> Any:
    """A whole number that changes with every float input, so that results move otherwise where inputs do."""
    salt = jnp.zeros((), "uint32")
    for array in arrays:
        if str(array.dtype) in FLOAT_DTYPES:
            bits = lax.bitcast_convert_type(array, f"uint{8 * numpy_dtype(str(array.dtype)).itemsize}")
            folded = bits ^ (bits >> 32) if bits.dtype.itemsize == 8 else bits
            salt = salt + jnp.sum(folded.astype("uint32") * jnp.uint32(2654435761), dtype="uint32")
    return salt


def nudge_programs(programs: Programs, names: frozenset[Any], other: Programs | None = None) -> Programs:
    """Nudge the operations of some programs of a port and leave out the others; training is kept or left out whole.

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

    with jax.enable_x64(programs.float64):
        parts = tuple(nudge_operations(part) for part in programs.parts if is_kept(part))
        trained = programs.step is not None and is_kept(programs.step)
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
        exact = eqn.primitive.name in EXACT and not _casts_to_narrower(eqn)
        return outs if exact else list(map(self._nudge, outs))

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
