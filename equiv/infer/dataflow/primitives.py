"""What jax's primitives do with a value in parts. Of one that is not listed only its operands are known."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from equiv.infer.dataflow.blocks import (
    NOWHERE,
    Cuts,
    Origins,
    Scene,
    Value,
    collapsed,
    filled,
    joined,
    order,
    parts,
    refined,
    seen,
    single,
    sliced,
    spans,
    viewed,
)
from equiv.infer.dataflow.contractions import conv, dot, gather
from equiv.infer.dataflow.leaf_uses import CONSTANT, Atom, elementwise, other
from equiv.infer.dataflow.strided_views import Shape, broadcast, flip, reshape, transpose
from equiv.programs.primitives import ELEMENTWISE, TRANSPARENT


def apply(scene: Scene, eqn: Any, ins: list[Value]) -> list[Value]:
    """The results of an equation that is neither a call nor a loop."""
    name, shapes = eqn.primitive.name, [tuple(var.aval.shape) for var in eqn.outvars]
    scene.uses.operation = name
    if name in TRANSPARENT:
        return ins[: len(shapes)]
    if 0 in (size for value in ins for size in value.shape):
        return [single(shape, CONSTANT) for shape in shapes]
    if name in RULES:
        return RULES[name](scene, eqn, ins, shapes)
    if name in ELEMENTWISE or name in ("real", "reduce_precision", "clamp"):
        return [_elementwise(scene, name, ins, shapes[0])]
    return unknown(scene, ins, shapes)


def unknown(scene: Scene, ins: Sequence[Value], shapes: Sequence[Shape]) -> list[Value]:
    """Results of an operation of which nothing is known but its operands."""
    atom = other(scene.uses, [atom for value in ins for atom in parts(value)])
    return [single(shape, atom) for shape in shapes]


def _elementwise(scene: Scene, name: str, ins: list[Value], shape: Shape) -> Value:
    full = [value for value in ins if len(value.shape) == len(shape)]
    cuts: tuple[Cuts, ...] = ()
    origins: tuple[Origins, ...] = ()
    for axis, size in enumerate(shape):
        along = [value for value in full if value.shape[axis] == size]
        places = sorted({cut for value in along for cut in value.cuts[axis]})
        cuts = (*cuts, tuple(places))
        origins = (*origins, NOWHERE.union(*(value.origins[axis] for value in along)))
    for axis, places in enumerate(cuts):
        full = [refined(value, axis, places) if value.shape[axis] == shape[axis] else value for value in full]
    rest, axes = iter(full), order(origins)
    ins = [next(rest) if len(value.shape) == len(shape) else value for value in ins]

    def make(index: tuple[int, ...]) -> Atom:
        sizes = tuple(spans(places, size)[at] for places, size, at in zip(cuts, shape, index, strict=True))
        atoms = [_at(value, index, tuple(end - start for start, end in sizes)) for value in ins]
        return elementwise(scene.uses, name, atoms, index, axes)

    return Value(shape, filled(shape, cuts, make), cuts, origins)


def _at(value: Value, index: tuple[int, ...], shape: Shape) -> Atom:
    """The part of an operand at a place of the result; unit axes and scalars repeat."""
    if len(value.shape) != len(index):
        return seen(value.cells.flat[0], lambda view: broadcast(view, shape, ()))
    atom = value.cells[tuple(at if count > 1 else 0 for at, count in zip(index, value.cells.shape, strict=True))]
    if value.shape == shape or not atom.leaves:
        return atom
    return seen(atom, lambda view: broadcast(view, shape, range(len(shape))) if view.shape != shape else view)


def _transpose(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    value, order = ins[0], tuple(map(int, eqn.params["permutation"]))
    cells = viewed(value.cells, lambda view: transpose(view, order)).transpose(order)
    cuts = tuple(value.cuts[axis] for axis in order)
    return [Value(shapes[0], cells, cuts, tuple(value.origins[axis] for axis in order))]


def _broadcast(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    value, shape, places = ins[0], shapes[0], tuple(map(int, eqn.params["broadcast_dimensions"]))
    kept = {place: axis for axis, place in enumerate(places) if value.shape[axis] == shape[place]}
    cuts = tuple(value.cuts[kept[axis]] if axis in kept else () for axis in range(len(shape)))
    origins = tuple(value.origins[kept[axis]] if axis in kept else NOWHERE for axis in range(len(shape)))

    def make(index: tuple[int, ...]) -> Atom:
        sizes = tuple(end - start for start, end in _part(cuts, shape, index))
        at = tuple(index[place] if place in kept else 0 for place in places)
        return seen(value.cells[at], lambda view: broadcast(view, sizes, places))

    return [Value(shape, filled(shape, cuts, make), cuts, origins)]


def _part(cuts: tuple[Cuts, ...], shape: Shape, index: tuple[int, ...]) -> list[tuple[int, int]]:
    return [spans(places, size)[at] for places, size, at in zip(cuts, shape, index, strict=True)]


def _reshape(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    """Cuts stay where the slowest axis of a group of axes is cut."""
    value, shape = ins[0], shapes[0]
    cuts: list[Cuts] = [()] * len(shape)
    origins: list[Origins] = [NOWHERE] * len(shape)
    lost: list[int] = []
    for before, after in _groups(value.shape, shape):
        old = next((axis for axis in before if value.shape[axis] > 1), None)
        new = next((axis for axis in after if shape[axis] > 1), None)
        if old is None or new is None:
            continue
        inner = prod(shape[axis] for axis in after if axis > new)
        step = Fraction(inner, prod(value.shape[axis] for axis in before if axis > old))
        places = [cut / step for cut in value.cuts[old]]
        lost += [axis for axis in before if value.cuts[axis] and axis != old]
        if any(place.denominator > 1 for place in places):
            lost.append(old)
        else:
            cuts[new] = tuple(map(int, places))
        origins[new] = frozenset((leaf, at, unit * step, start) for leaf, at, unit, start in value.origins[old])
    cells = collapsed(scene, value, lost).cells.reshape([len(places) + 1 for places in cuts])

    def make(index: tuple[int, ...]) -> Atom:
        sizes = tuple(end - start for start, end in _part(tuple(cuts), shape, index))
        return seen(cells[index], lambda view: reshape(view, sizes))

    return [Value(shape, filled(shape, tuple(cuts), make), tuple(cuts), tuple(origins))]


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes of two shapes that hold the same elements."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before: list[int] = []
        after: list[int] = []
        while not (before and after) or prod(old[a] for a in before) != prod(new[a] for a in after):
            one, two = prod(old[axis] for axis in before), prod(new[axis] for axis in after)
            if i < len(old) and (one <= two or j >= len(new)):
                before.append(i)
                i += 1
            elif j < len(new):
                after.append(j)
                j += 1
            else:
                break
        found.append((before, after))
    return found


def _slice(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    value, params = ins[0], eqn.params
    for axis, (start, stop) in enumerate(zip(params["start_indices"], params["limit_indices"], strict=True)):
        stride = (params["strides"] or (1,) * len(value.shape))[axis]
        if stride == 1:
            value = sliced(scene, value, axis, int(start), int(stop))
        else:
            value = collapsed(scene, value, [axis])
            cells = viewed(value.cells, lambda view: None)
            shape = (*value.shape[:axis], shapes[0][axis], *value.shape[axis + 1 :])
            origins = (*value.origins[:axis], NOWHERE, *value.origins[axis + 1 :])
            value = Value(shape, cells, value.cuts, origins)
    return [value]


def _split(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    axis, starts = eqn.params["axis"], np.cumsum([0, *eqn.params["sizes"]])
    return [sliced(scene, ins[0], axis, int(start), int(stop)) for start, stop in pairwise(starts)]


def _unstack(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    """A slice along an axis for each result, without that axis (jax 0.11)."""
    axis = eqn.params["axis"]
    parts = [sliced(scene, ins[0], axis, index, index + 1) for index in range(len(shapes))]
    return [_reshape(scene, eqn, [part], [shape])[0] for part, shape in zip(parts, shapes, strict=True)]


def _stack(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    axis, shape = eqn.params["axis"], shapes[0]
    one = [(*shape[:axis], 1, *shape[axis + 1 :])]
    return [joined(scene, [_reshape(scene, eqn, [value], one)[0] for value in ins], axis)]


def _rev(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    axes = tuple(map(int, eqn.params["dimensions"]))
    value = collapsed(scene, ins[0], axes)
    origins = tuple(NOWHERE if axis in axes else item for axis, item in enumerate(value.origins))
    return [Value(value.shape, viewed(value.cells, lambda view: flip(view, axes)), value.cuts, origins)]


def _reduce(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    axes, total = tuple(map(int, eqn.params["axes"])), eqn.primitive.name == "reduce_sum"
    value = collapsed(scene, ins[0], axes, total)
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]

    def one(atom: Atom) -> Atom:
        return seen(atom, lambda view: None) if total else other(scene.uses, [atom])

    cuts = tuple(value.cuts[axis] for axis in kept)
    cells = value.cells.reshape([len(places) + 1 for places in cuts])
    found = filled(shapes[0], cuts, lambda index: one(cells[index]))
    return [Value(shapes[0], found, cuts, tuple(value.origins[axis] for axis in kept))]


def _concatenate(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    return [joined(scene, ins, eqn.params["dimension"])]


RULES: dict[str, Callable[[Scene, Any, list[Value], list[Shape]], list[Value]]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "rev": _rev,
    "concatenate": _concatenate,
    "dot_general": dot,
    "conv_general_dilated": conv,
    "gather": gather,
    "dynamic_slice": gather,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_or", "reduce_and"), _reduce),
}
