"""Trace a port with other batch sizes and sequence lengths, without running it: is it the same program but for sizes?

What is proved or measured holds for the shapes of the case. A model may ask for the size of its batch in Python, and be
another one beyond: that shows in the jaxpr alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from equiv.core.output_name import ProgramName
from equiv.core.scope import OtherSizes
from equiv.programs.jaxpr import count_equations, inner_jaxprs, locate_equation, open_jaxpr
from equiv.programs.program import Program
from equiv.programs.trace import Tracer, trace_forward

SIZE_STEPS = (128, 64)
"""What is added to a size: thresholds of a batch are mostly powers of two, and halves of padded axes stay whole. The
second is tried where the first leaves a doubt: a number may follow the size, or be another one beyond some size."""

MOST_EQUATIONS = 1500
"""Largest call that is traced again: above, tracing is a noticeable part of a run."""

Batch = Mapping[str, jax.ShapeDtypeStruct]


def trace_other_sizes(tracer: Tracer, known: Sequence[Any]) -> Iterator[OtherSizes]:
    """Trace the calls of a port with other sizes of the first axis, and of a sequence's second one.

    Args:
        tracer: of the port.
        known: its calls in the sizes of the case, which are not traced again if they are too large.
    """
    port = tracer.port.name
    large = sum(count_equations(program.jaxpr) for program in known) > MOST_EQUATIONS
    for axis, size in _list_axes(tracer.request.batch):
        sizes, places = (size + SIZE_STEPS[0],), list[str]()
        trace = _trace_sized(tracer, axis, size)
        if large:
            yield OtherSizes(port, axis, size, sizes, "too large")
            continue
        try:
            if places := list(_compare_calls(tracer, trace, (size, *sizes))):
                sizes = tuple(sorted(size + more for more in SIZE_STEPS))
                places = list(_compare_calls(tracer, trace, (size, *sizes)))
        except Exception:  # noqa: BLE001 - whatever a model raises, it is not made for other sizes
            # The features of a layer are an axis, too: only of the batch it is worth saying.
            if axis == 0:
                yield OtherSizes(port, axis, size, sizes, "fails")
            continue
        yield OtherSizes(port, axis, size, sizes, "another program" if places else "same", places[0] if places else "")


def _list_axes(batch: Batch) -> Iterator[tuple[int, int]]:
    """Yield the batch axis, and the second axis of sequences: of whole numbers, or of vectors."""
    shapes = [(entry.shape, np.issubdtype(entry.dtype, np.integer)) for entry in batch.values()]
    first = next((shape[0] for shape, _ in shapes if shape), None)
    if first is not None:
        yield 0, first
    second = next((shape[1] for shape, whole in shapes if len(shape) == (2 if whole else 3)), None)
    if second is not None:
        yield 1, second


TraceSized = Callable[[ProgramName, int], Program]
"""The call of this name with this size."""


def _trace_sized(tracer: Tracer, axis: int, own: int) -> TraceSized:
    """Trace calls with sizes of an axis: each once, and with the size of the case not again."""
    tracers: dict[int, Tracer] = {}

    @cache
    def trace(name: ProgramName, size: int) -> Program:
        if size == own:
            return trace_forward(tracer, name)
        if size not in tracers:
            tracers[size] = _with_size(tracer, axis, own, size)
        return trace_forward.__wrapped__(tracers[size], name)

    return trace


def _compare_calls(tracer: Tracer, trace: TraceSized, sizes: Sequence[int]) -> Iterator[str]:
    """Yield the places at which calls with other sizes are other programs; the first size is that of the case."""
    for method in tracer.request.methods:
        for mode in tracer.modes():
            name = ProgramName(mode, method)
            yield from _Comparison(sizes).compare([trace(name, size).jaxpr for size in sizes], ())


def _with_size(tracer: Tracer, axis: int, before: int, after: int) -> Tracer:
    def changed(entry: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if len(entry.shape) <= axis or entry.shape[axis] != before:
            return entry
        return jax.ShapeDtypeStruct((*entry.shape[:axis], after, *entry.shape[axis + 1 :]), entry.dtype)

    batch = {name: changed(entry) for name, entry in tracer.request.batch.items()}
    return replace(tracer, request=replace(tracer.request, batch=batch))


class _Comparison:
    """Compare programs that were traced with several sizes, equation by equation.

    Attributes:
        sizes: the sizes, in the order of the programs.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def compare(self, jaxprs: Sequence[Any], around: tuple[Any, ...]) -> Iterator[str]:
        """Yield every equation that is another one with another size; a difference in number ends the comparison."""
        opened = [open_jaxpr(one) for one in jaxprs]
        bodies = [jaxpr for jaxpr, _ in opened]
        if not self._agree([[_shapeless(array) for array in consts] for _, consts in opened]):
            yield _place((*around, bodies[0].eqns[0])) if bodies[0].eqns else "a constant"
        numbers = [_number_variables(jaxpr) for jaxpr in bodies]
        for eqns in zip(*(jaxpr.eqns for jaxpr in bodies), strict=False):
            path = (*around, eqns[0])
            inner = [inner_jaxprs(eqn) for eqn in eqns]
            if len({(eqn.primitive.name, len(found)) for eqn, found in zip(eqns, inner, strict=True)}) > 1:
                yield _place(path)
                return
            if not self._agree([_describe(eqn, known) for eqn, known in zip(eqns, numbers, strict=True)]):
                yield _place(path)
            for parts in zip(*inner, strict=True):
                yield from self.compare(parts, path)
        if len({len(jaxpr.eqns) for jaxpr in bodies}) > 1:
            longest = max(bodies, key=lambda jaxpr: len(jaxpr.eqns))
            yield _place((*around, longest.eqns[min(len(jaxpr.eqns) for jaxpr in bodies)]))

    def _agree(self, values: Sequence[Any]) -> bool:
        """Whether plain data is the same with every size, numbers in it apart that follow the size."""
        first = values[0]
        if isinstance(first, (list, tuple)):
            lengths = {len(one) if isinstance(one, (list, tuple)) else -1 for one in values}
            return len(lengths) == 1 and all(self._agree(parts) for parts in zip(*values, strict=True))
        if all(one == first or (one != one and first != first) for one in values):
            return True
        numbers = [one for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)]
        return len(numbers) == len(values) and self._follow(numbers)

    def _follow(self, values: Sequence[float]) -> bool:
        """Whether numbers are a function of the size: linear in a power of it, or the inverse or a root of that.

        Of two sizes only, the plainest of these: a multiple or a power of the size, or a whole number of them more.
        """
        given, sizes = np.array(values, "float64"), np.array(self.sizes, "float64")
        with np.errstate(all="ignore"):
            if len(sizes) == 2:
                ratio, power = given[1] / given[0], np.log(sizes[1] / sizes[0])
                slope = (given[1] - given[0]) / (sizes[1] - sizes[0])
                powers = bool(ratio > 0) and min(abs(np.log(ratio) / power - one) for one in POWERS) < 1e-5
                return powers or slope == np.round(slope)
            forms = [given, given**2, 1 / given, 1 / given**2]
        return any(_is_linear(form, sizes**power) for form in forms for power in POWERS)


POWERS = (-2, -1, -0.5, 0.5, 1, 2)
"""Powers of a size that a program computes with: means, their roots, and pairs."""


def _is_linear(values: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether three numbers, rounded to float32, are on one line."""
    slopes = np.diff(values) / np.diff(sizes)
    rounding = 8 * np.finfo("float32").eps * float(np.max(np.abs(values))) / float(np.min(np.abs(np.diff(sizes))))
    return bool(np.all(np.isfinite(values))) and math.isclose(slopes[0], slopes[1], rel_tol=1e-4, abs_tol=rounding)


def _number_variables(jaxpr: Any) -> dict[Any, int]:
    given = (*jaxpr.constvars, *jaxpr.invars, *(out for eqn in jaxpr.eqns for out in eqn.outvars))
    return {variable: number for number, variable in enumerate(given)}


def _describe(eqn: Any, numbers: Mapping[Any, int]) -> list[Any]:
    """An equation as plain data: its operands, the types of its results, and its parameters without bodies."""
    operands = [
        ["literal", _shapeless(np.asarray(atom.val))] if isinstance(atom, core.Literal) else f"variable {numbers[atom]}"
        for atom in eqn.invars
    ]
    results = [[str(out.aval.dtype), list(out.aval.shape)] if hasattr(out.aval, "dtype") else "" for out in eqn.outvars]
    bodies = {id(body) for body in inner_jaxprs(eqn)}
    parameters = [[name, _plain(value, bodies)] for name, value in sorted(eqn.params.items())]
    return [operands, results, parameters]


def _plain(value: Any, bodies: set[int]) -> Any:
    """A parameter as nested lists, numbers and text; what has no content of its own is its type."""
    if id(value) in bodies:
        return "body"
    if isinstance(value, Mapping):
        return [[str(key), _plain(item, bodies)] for key, item in value.items()]
    if isinstance(value, (tuple, list)):
        return [_plain(item, bodies) for item in value]
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, (np.ndarray, jax.Array)):
        return _shapeless(value)
    if hasattr(value, "__dataclass_fields__"):
        return [[name, _plain(getattr(value, name), bodies)] for name in value.__dataclass_fields__]
    return type(value).__name__


def _shapeless(array: Any) -> Any:
    """The one number of an array; of several its dtype and shape, and its numbers if they are few."""
    if not hasattr(array, "dtype") or jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return type(array).__name__
    known = np.asarray(array)
    if known.ndim == 0:
        return known.item() if not np.iscomplexobj(known) else str(known)
    return [str(known.dtype), list(known.shape)]


def _place(path: tuple[Any, ...]) -> str:
    line, user_line, _ = locate_equation(path)
    found = user_line or line
    name = path[-1].primitive.name
    return f"{name} at {found.short}" if found else name
