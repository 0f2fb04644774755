"""Programs whose floats are float64 and whose casts are still there, each as one `reduce_precision` of its dtype.

In a float64 trace casts are gone. Whether a proof needs that is decided on this form: it is made of the program in the
port's own dtypes, which says where casts are. Its constants are rounded; the nearest number of the float64 trace stands
for each. That is a guess, so that equal names in this form say that casts are the same, not that constants are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core

from equiv.compat import bind_equation
from equiv.errors import PortError
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr, visit_equations
from equiv.programs.primitives import CONTRACTIONS
from equiv.programs.program import Program
from equiv.programs.reevaluation import Reevaluation
from equiv.programs.transform import DOUBLE_DTYPES, NARROW_FLOAT_DTYPES, as_float64, constant_as_float64, float64_params

CONVERTED_DTYPES = (*NARROW_FLOAT_DTYPES, "float64")
"""Dtypes of which a float64 program keeps nothing."""

CASTING = CONTRACTIONS | {"convert_element_type"}
"""Primitives whose result may have another float dtype than their operands."""


def _dtype(value: Any) -> str:
    """The name of the dtype of an array or of its shape; empty of what has none."""
    return getattr(getattr(value, "dtype", None), "name", "")


def float_dtypes(program: Program) -> frozenset[str]:
    """The float dtypes in which a program computes, those of its inputs included."""
    avals = [*program.jaxpr.in_avals, *program.jaxpr.out_avals]
    avals += [atom.aval for _, eqn in visit_equations(program.jaxpr) for atom in (*eqn.invars, *eqn.outvars)]
    return frozenset(dtype for dtype in (_dtype(aval) for aval in avals) if "float" in dtype)


def has_casts(program: Program) -> bool:
    """Whether a float64 trace of the program removes casts: it has several float dtypes, or reduces a precision."""
    return len(float_dtypes(program)) > 1 or any(
        eqn.primitive.name == "reduce_precision" for _, eqn in visit_equations(program.jaxpr)
    )


def keep_casts(program: Program, lifted: Program) -> Program:
    """Make a program's floats float64 and keep its casts; call it inside `jax.enable_x64(True)`.

    Args:
        program: in the port's own dtypes, its draws inputs.
        lifted: its float64 trace, which gives the constants.

    Raises:
        PortError: there are casts inside of an operation that is no call and no loop.
    """

    return _widen(program, _scalar_constants(lifted.jaxpr))


def leave_casts_out(program: Program) -> Program:
    """Make a program's floats float64, without its casts, and with every number exactly as the port has rounded it.

    What is computed from numbers alone is computed in the port's own dtypes, as a compiler does. Call it inside
    `jax.enable_x64(True)`; errors as of `keep_casts`.
    """
    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals]
    computed = jax.make_jaxpr(lambda *arrays: _ComputedNumbers().run(program.jaxpr, arrays))(*structs)
    return _widen(replace(program, jaxpr=computed), None)


def _widen(program: Program, exact: Sequence[float] | None) -> Program:
    def run(*arrays: Any) -> list[Any]:
        evaluation = _NoCasts(()) if exact is None else _KeptCasts(exact)
        return evaluation.run(program.jaxpr, arrays)

    structs = [
        jax.ShapeDtypeStruct(aval.shape, DOUBLE_DTYPES.get(_dtype(aval), aval.dtype)) for aval in program.jaxpr.in_avals
    ]
    return replace(program, jaxpr=jax.make_jaxpr(run)(*structs))


def _scalar_constants(closed: Any) -> tuple[float, ...]:
    """The single float64 numbers in a program."""
    found = dict.fromkeys(
        float(atom.val)
        for _, eqn in visit_equations(closed)
        for atom in eqn.invars
        if isinstance(atom, core.Literal) and _dtype(atom.aval) == "float64"
    )
    consts: Iterable[Any] = open_jaxpr(closed)[1]
    found |= dict.fromkeys(float(one) for one in consts if _dtype(one) == "float64" and not np.ndim(one))
    return tuple(found)


@dataclass
class _KeptCasts(Reevaluation):
    """Evaluation under the current trace in float64, with a `reduce_precision` for every cast.

    Attributes:
        exact: numbers of the float64 trace.
    """

    exact: Sequence[float]

    def literal(self, atom: Any) -> Any:
        return self.constant(super().literal(atom))

    def constant(self, array: Any) -> Any:
        if _dtype(array) in NARROW_FLOAT_DTYPES and not np.ndim(array) and self.exact:
            rounded = float(np.asarray(array))
            nearest = min(self.exact, key=lambda one: abs(one - rounded))
            # Half of the digits: the others may have been lost in computing it.
            if abs(nearest - rounded) <= abs(rounded) * float(jnp.finfo(array.dtype).eps) ** 0.5:
                return np.asarray(nearest)
        return constant_as_float64(array)

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name != "bitcast_convert_type":
            _check_no_casts_inside(eqn)
            params = float64_params(eqn, ins)
        else:  # bits have a meaning only at the width that was traced
            ins = [jnp.asarray(value, atom.aval.dtype) for value, atom in zip(ins, eqn.invars, strict=True)]
        outs = list(map(as_float64, bind_equation(eqn, ins, params)))
        # A constant is a number, whatever its dtype.
        if name not in CASTING or not any(isinstance(one, Tracer) for one in ins):
            return outs
        return [self.mark(value, eqn, var) for value, var in zip(outs, eqn.outvars, strict=True)]

    def mark(self, value: Any, eqn: Any, var: Any) -> Any:
        """Say that a value was cast."""
        return _mark_cast(value, eqn, var)


class _NoCasts(_KeptCasts):
    """Evaluation under the current trace in float64, without casts, with numbers as they are."""

    def constant(self, array: Any) -> Any:
        return as_float64(array)

    def mark(self, value: Any, eqn: Any, var: Any) -> Any:
        return value


class _ComputedNumbers(Reevaluation):
    """Evaluation under the current trace in which an operation on numbers alone is computed, in its own dtype."""

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        atoms = (*eqn.invars, *eqn.outvars)
        numbers = all(not getattr(atom.aval, "shape", (1,)) and "float" in _dtype(atom.aval) for atom in atoms)
        if not ins or not numbers or any(isinstance(one, Tracer) for one in ins) or inner_jaxprs(eqn):
            return super().equation(eqn, ins)
        with jax.ensure_compile_time_eval():
            return [np.asarray(value) for value in bind_equation(eqn, ins)]


def _check_no_casts_inside(eqn: Any) -> None:
    dtypes = {
        _dtype(atom.aval)
        for body in inner_jaxprs(eqn)
        for _, inner in visit_equations(body)
        for atom in (*inner.invars, *inner.outvars)
        if "float" in _dtype(atom.aval)
    }
    if len(dtypes) > 1:
        raise PortError(f"casts inside of {eqn.primitive.name} cannot be kept.")


def _mark_cast(value: Any, eqn: Any, var: Any) -> Any:
    """Mark a float64 value of a cast, or of a product in another dtype than its operands', with the dtype it had."""
    before, after = [_dtype(atom.aval) for atom in eqn.invars], _dtype(var.aval)
    # A truth value is 0 or 1 in every dtype.
    if after not in CONVERTED_DTYPES or set(before) <= {after, "bool"}:
        return value
    known = jnp.finfo(after)
    return lax.reduce_precision(value, exponent_bits=known.nexp, mantissa_bits=known.nmant)
