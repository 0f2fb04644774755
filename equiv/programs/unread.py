"""Which elements of its leaves no call of a port reads, as the half of a head whose other half is used alone.

Found from the programs, from outputs to inputs: an axis that is sliced is needed where the slice is. What an operation
needs of its operands and is not known here counts as everything, so that an element said to be unread is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from jax.extend import core

from equiv.core.output_name import InputName
from equiv.core.scope import Unexercised
from equiv.programs.jaxpr import called_jaxpr, open_jaxpr
from equiv.programs.primitives import CALLS, ELEMENTWISE, IDENTITIES, REDUCTIONS, is_jax_primitive
from equiv.programs.program import Program

Needed = tuple[np.ndarray, ...] | None
"""For each axis of an array a mark for every index that is needed; None: nothing of it is."""


def list_unread(port: str, calls: Sequence[Program]) -> Iterator[Unexercised]:
    """Yield the leaves that no call reads, or of which none reads more than a part.

    Args:
        port: name of the port.
        calls: its programs, of every method and mode.
    """
    found: dict[InputName, list[np.ndarray]] = {}
    shapes: dict[InputName, tuple[int, ...]] = {}
    for program in calls:
        for name, aval, needed in zip(
            program.inputs, program.jaxpr.in_avals, needed_inputs(program.jaxpr), strict=True
        ):
            if name.kind == "leaf":
                shapes[name] = tuple(aval.shape)
                marks = np.zeros(aval.shape, bool)
                if needed is not None:
                    marks[np.ix_(*needed)] = True
                found.setdefault(name, []).append(marks)
    for name, marks in found.items():
        read, size = int(np.any(marks, axis=0).sum()), prod(shapes[name])
        if read < size:
            yield Unexercised(port, "unread", name.leaf, (float(size - read),), size)


def needed_inputs(closed: Any) -> list[Needed]:
    """What a program needs of each of its inputs for all outputs but those that are an input as it stands."""
    jaxpr, _ = open_jaxpr(closed)
    given = set(jaxpr.invars)
    return _walk(jaxpr, [None if _is_any(out, given) else _everything(out) for out in jaxpr.outvars])


def _is_any(atom: Any, variables: set[Any]) -> bool:
    return not isinstance(atom, core.Literal) and atom in variables


def _everything(atom: Any) -> Needed:
    return tuple(np.ones(size, bool) for size in atom.aval.shape)


def _either(one: Needed, two: Needed) -> Needed:
    if one is None or two is None:
        return two if one is None else one
    return tuple(a | b for a, b in zip(one, two, strict=True))


def _walk(jaxpr: Any, outs: Sequence[Needed]) -> list[Needed]:
    """From what is needed of a jaxpr's outputs to what is needed of its inputs."""
    needed: dict[Any, Needed] = {}

    def need(atoms: Sequence[Any], wanted: Sequence[Needed]) -> None:
        for atom, some in zip(atoms, wanted, strict=True):
            if not isinstance(atom, core.Literal):
                needed[atom] = _either(needed.get(atom), some)

    need(jaxpr.outvars, outs)
    for eqn in reversed(jaxpr.eqns):
        wanted = [needed.get(out) for out in eqn.outvars]
        if any(one is not None for one in wanted):
            need(eqn.invars, _operands(eqn, wanted))
    return [needed.get(variable) for variable in jaxpr.invars]


def _operands(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    name = eqn.primitive.name
    rule = _RULES.get(name) if is_jax_primitive(eqn.primitive) else None
    if rule is None or (len(wanted) == 1 and wanted[0] is None):
        return [_everything(atom) for atom in eqn.invars]
    return rule(eqn, wanted)


def _call(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    jaxpr, _ = open_jaxpr(called_jaxpr(eqn))
    body = _walk(jaxpr, wanted)
    return [*map(_everything, eqn.invars[: len(eqn.invars) - len(body)]), *body]


def _elementwise(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    rank, found = len(wanted[0]), list[Needed]()
    for atom in eqn.invars:
        shape = atom.aval.shape
        if len(shape) != rank:
            found.append(_everything(atom))
            continue
        # An axis of size one is repeated.
        sides = zip(wanted[0], shape, strict=True)
        found.append(tuple(mark if len(mark) == size else np.ones(size, bool) for mark, size in sides))
    return found


def _slice(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    strides = eqn.params["strides"] or (1,) * len(wanted[0])
    found = []
    for size, mark, start, stop, stride in zip(
        eqn.invars[0].aval.shape,
        wanted[0],
        eqn.params["start_indices"],
        eqn.params["limit_indices"],
        strides,
        strict=True,
    ):
        found.append(np.zeros(size, bool))
        found[-1][start:stop:stride] = mark
    return [tuple(found)]


def _split(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    axis, whole = eqn.params["axis"], [np.zeros(size, bool) for size in eqn.invars[0].aval.shape]
    start = 0
    for size, one in zip(eqn.params["sizes"], wanted, strict=True):
        for at, mark in enumerate(one or ()):
            if at == axis:
                whole[at][start : start + size] = mark
            else:
                whole[at] |= mark
        start += size
    return [tuple(whole)]


def _concatenate(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    axis, start, found = eqn.params["dimension"], 0, []
    for atom in eqn.invars:
        stop = start + atom.aval.shape[axis]
        found.append(tuple(mark[start:stop] if at == axis else mark for at, mark in enumerate(wanted[0])))
        start = stop
    return found


def _transpose(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    places = list(eqn.params["permutation"])
    return [tuple(wanted[0][places.index(axis)] for axis in range(len(places)))]


def _broadcast(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    shape, places = eqn.invars[0].aval.shape, eqn.params["broadcast_dimensions"]
    kept = [
        wanted[0][place] if len(wanted[0][place]) == size else np.ones(size, bool)
        for size, place in zip(shape, places, strict=True)
    ]
    return [tuple(kept), *map(_everything, eqn.invars[1:])]


def _reshape(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    """Axes that only get unit axes beside them are as they were; of what is merged or split, all is needed."""
    assert wanted[0] is not None
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    ends = {prod(after[:axis]): axis for axis in range(len(after)) if after[axis] > 1}
    found = []
    for axis, size in enumerate(before):
        place = ends.get(prod(before[:axis]))
        same = size > 1 and place is not None and after[place] == size
        found.append(wanted[0][place] if same and place is not None else np.ones(size, bool))
    return [tuple(found), *map(_everything, eqn.invars[1:])]


def _reduction(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    left, axes = iter(wanted[0]), set(eqn.params["axes"])
    shape = eqn.invars[0].aval.shape
    return [tuple(np.ones(size, bool) if axis in axes else next(left) for axis, size in enumerate(shape))]


def _contraction(eqn: Any, wanted: Sequence[Needed]) -> Sequence[Needed]:
    assert wanted[0] is not None
    contracted, batch = eqn.params["dimension_numbers"]
    number, found = len(batch[0]), []
    free = number
    for side, atom in enumerate(eqn.invars):
        marks = [np.ones(size, bool) for size in atom.aval.shape]
        for axis in range(len(marks)):
            if axis in batch[side]:
                marks[axis] = wanted[0][list(batch[side]).index(axis)]
            elif axis not in contracted[side]:
                marks[axis], free = wanted[0][free], free + 1
        found.append(tuple(marks))
    return found


_RULES: Mapping[str, Callable[[Any, Sequence[Needed]], Sequence[Needed]]] = {
    **dict.fromkeys(ELEMENTWISE | IDENTITIES, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(CALLS, _call),
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _contraction,
}
"""Primitive to what it needs of its operands, for what is needed of its results."""
