"""Programs with the precision of their dtypes, but the range of float32: what they would compute if nothing overflowed.

float16 holds numbers from 6e-5 to 65504 only. A value that leaves this range on the way becomes infinite or zero, and
what follows is wrong. Here every float of a narrow range is a float32 that is rounded to as many digits: both runs
round alike, so that they differ only by what left the range.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from equiv.compat import bind_equation
from equiv.programs.jaxpr import Interpreter, locate_equation, open_jaxpr, read_scan, read_while, visit_equations
from equiv.programs.keep_casts import float_dtypes
from equiv.programs.primitives import EXACT, is_jax_primitive
from equiv.programs.program import Program
from equiv.programs.transform import DTYPE_PARAMETERS

WIDE = "float32"
"""The dtype whose range is taken for granted: that of bfloat16 is as wide, that of float64 wider."""


@dataclass(frozen=True)
class FloatRange:
    """The range of a float dtype.

    Attributes:
        dtype: its name.
        smallest: the smallest normal number: smaller ones lose digits.
        largest: the largest finite number.
        ulp: the spacing of floats around 1.
    """

    dtype: str
    smallest: float
    largest: float
    ulp: float


def float_range(dtype: str) -> FloatRange:
    """The range of a float dtype."""
    known = jnp.finfo(dtype)
    return FloatRange(dtype, float(known.tiny), float(known.max), float(known.eps))


def narrow_ranges(program: Program) -> frozenset[FloatRange]:
    """The ranges of the dtypes in which a program computes, where they are narrower than that of float32."""
    wide = jnp.finfo(WIDE)
    return frozenset(
        float_range(dtype)
        for dtype in float_dtypes(program)
        if jnp.finfo(dtype).maxexp < wide.maxexp or jnp.finfo(dtype).minexp > wide.minexp
    )


def is_narrow(dtype: Any) -> bool:
    """Whether a dtype is a float with a range narrower than that of float32."""
    return jnp.issubdtype(dtype, np.floating) and jnp.finfo(dtype).maxexp < jnp.finfo(WIDE).maxexp


@dataclass(frozen=True)
class RangeSite:
    """An equation whose result may leave the range of its dtype.

    Attributes:
        primitive: its name.
        where: `FILE:LINE` of the user's code; empty if unknown.
        range: of its result's dtype.
    """

    primitive: str
    where: str
    range: FloatRange

    def is_left(self, largest: float, smallest: float) -> bool:
        """Whether a magnitude is outside of the range: beyond its end, or with fewer digits."""
        return largest > self.range.largest or smallest < self.range.smallest

    @classmethod
    def of(cls, path: Sequence[Any], var: Any) -> "RangeSite":
        """The site of one result of an equation, which comes after the calls and loops that it is in."""
        line, user_line, _ = locate_equation(path)
        place = user_line or line
        return cls(path[-1].primitive.name, place.short if place else "", float_range(str(var.aval.dtype)))


def range_sites(program: Program) -> frozenset[RangeSite]:
    """The sites of a program."""
    return frozenset(
        RangeSite.of((*enclosing, eqn), var)
        for enclosing, eqn in visit_equations(program.jaxpr)
        for var in eqn.outvars
        if is_narrow(var.aval.dtype)
    )


def widen(value: Any) -> Any:
    """A value of a narrow range as float32; another one as it is."""
    return jnp.asarray(value, WIDE) if is_narrow(jnp.result_type(value)) else value


def _structs(atoms: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    dtypes = [WIDE if is_narrow(atom.aval.dtype) else atom.aval.dtype for atom in atoms]
    return [jax.ShapeDtypeStruct(atom.aval.shape, dtype) for atom, dtype in zip(atoms, dtypes, strict=True)]


def observe_ranges(closed: Any, arrays: Sequence[Any]) -> tuple[list[Any], list[tuple[RangeSite, Any]]]:
    """Evaluate a jaxpr under a trace of jax with the range of float32 everywhere.

    Args:
        closed: the jaxpr.
        arrays: its inputs; those of a narrow range may be float32 already.

    Returns:
        Its outputs, and every site outside of `while` and `cond`, in order, with the largest and the smallest magnitude
        there, zeros left out.
    """
    evaluation = _WidenedRange()
    return evaluation.run(closed, list(map(widen, arrays))), evaluation.found


@dataclass
class _WidenedRange(Interpreter[Any]):
    """Evaluation under the current trace with float32 for every dtype of a narrow range, rounded to its digits.

    Attributes:
        found: see `observe_ranges`.
    """

    found: list[tuple[RangeSite, Any]] = field(default_factory=list)

    def literal(self, atom: Any) -> Any:
        return self.constant(np.asarray(atom.val, atom.aval.dtype))

    def constant(self, array: Any) -> Any:
        return widen(array)

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        name, params = eqn.primitive.name, eqn.params
        narrow = any(is_narrow(atom.aval.dtype) for atom in (*eqn.invars, *eqn.outvars))
        # What an unknown operation makes of float32 is not what it makes of a narrow dtype; nor are its bits.
        opaque = narrow and (name == "bitcast_convert_type" or not is_jax_primitive(eqn.primitive))
        if opaque:
            ins = [jnp.asarray(one, atom.aval.dtype) for one, atom in zip(ins, eqn.invars, strict=True)]
        elif narrow:
            params = _widen_params(params)
        outs = list(map(widen, bind_equation(eqn, ins, params)))
        return (
            outs if opaque or not narrow else [self._round(eqn, *pair) for pair in zip(outs, eqn.outvars, strict=True)]
        )

    def _round(self, eqn: Any, value: Any, var: Any) -> Any:
        if not is_narrow(var.aval.dtype) or (eqn.primitive.name in EXACT and eqn.primitive.name != CAST):
            return value
        value = lax.reduce_precision(
            value, exponent_bits=jnp.finfo(WIDE).nexp, mantissa_bits=jnp.finfo(var.aval.dtype).nmant
        )
        if value.size:
            sizes = jnp.abs(value)
            largest = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0))
            smallest = jnp.min(jnp.where(sizes > 0, sizes, jnp.inf))
            self.found.append((RangeSite.of((*self.calls, eqn), var), jnp.stack([largest, smallest])))
        return value

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        loop = read_scan(eqn)
        fixed, start, scanned = loop.split(ins)
        sites: list[RangeSite] = []

        def step(carry: tuple[Any, ...], slices: list[Any]) -> tuple[Any, Any]:
            inner = self._inside(eqn)
            outs = inner.run(loop.body, [*fixed, *carry, *slices])
            sites[:] = [site for site, _ in inner.found]
            return tuple(outs[: loop.carries]), (tuple(outs[loop.carries :]), [seen for _, seen in inner.found])

        carry, (stacked, seen) = lax.scan(step, tuple(map(jnp.asarray, start)), scanned, loop.length, loop.reverse)
        if loop.length:
            self.found += [
                (site, jnp.stack([one[:, 0].max(), one[:, 1].min()])) for site, one in zip(sites, seen, strict=True)
            ]
        return [*carry, *stacked]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        loop = read_while(eqn)
        for_test, for_body, start = loop.split(ins)
        return lax.while_loop(
            lambda carry: self._inside(eqn).run(loop.test, [*for_test, *carry])[0],
            lambda carry: tuple(self._inside(eqn).run(loop.body, [*for_body, *carry])),
            tuple(map(jnp.asarray, start)),
        )

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        branches = [
            lambda *operands, closed=closed: tuple(self._inside(eqn).run(closed, operands))
            for closed in eqn.params["branches"]
        ]
        return lax.switch(ins[0], branches, *ins[1:])

    def _inside(self, eqn: Any) -> "_WidenedRange":
        inner = _WidenedRange()
        inner.calls = (*self.calls, eqn)
        return inner


CAST = "convert_element_type"
"""The one primitive that counts as exact and still may leave the range."""


def _widen_params(params: dict[str, Any]) -> dict[str, Any]:
    found = dict(params)
    for key in DTYPE_PARAMETERS:
        if found.get(key) is not None and is_narrow(found[key]):
            found[key] = jnp.dtype(WIDE)
    # An algorithm such as `F16_F16_F32` takes operands of its own dtypes only.
    if isinstance(found.get("precision"), lax.DotAlgorithm | lax.DotAlgorithmPreset):
        found["precision"] = None
    if "exponent_bits" in found:
        found["exponent_bits"] = max(found["exponent_bits"], jnp.finfo(WIDE).nexp)
    return {key: _widen_jaxpr(value) if hasattr(value, "eqns") or hasattr(value, "jaxpr") else value
            for key, value in found.items()}  # fmt: skip


def _widen_jaxpr(closed: Any) -> Any:
    jaxpr, _ = open_jaxpr(closed)
    widened = jax.make_jaxpr(lambda *arrays: _WidenedRange().run(closed, arrays))(*_structs(jaxpr.invars))
    return widened if isinstance(closed, core.ClosedJaxpr) else widened.jaxpr
