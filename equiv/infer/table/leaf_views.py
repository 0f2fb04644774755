"""How a leaf lies in its library according to a layer table, in the terms in which inference finds it."""

from collections.abc import Sequence

from equiv.core.layouts import Chain, Flip, Identity, Layout, Shift, SwapAxes, Transpose
from equiv.core.leaves import MappedLeaf
from equiv.core.packing import Columns
from equiv.infer.dataflow.strided_views import Shape, View, flip, reshape, strides, transpose, whole
from equiv.infer.matching.proposal import Bounds
from equiv.infer.matching.relations import Relation


def bounds_of(leaf: MappedLeaf) -> Bounds:
    """The part of a native leaf that it is."""
    return tuple((0, size) for size in leaf.native_shape) if leaf.region is None else leaf.region


def item_of(bounds: Bounds, shape: Shape) -> int | None:
    """The index on the first axis, for one of a stack."""
    full = bounds[1:] == tuple((0, size) for size in shape[1:])
    return bounds[0][0] if full and bounds and bounds[0][1] - bounds[0][0] == 1 < shape[0] else None


def columns_of(bounds: Bounds, shape: Shape) -> Columns | None:
    """The run of the last axis, for a part that is whole on all the others."""
    if not bounds or bounds[:-1] != tuple((0, size) for size in shape[:-1]) or bounds[-1] == (0, shape[-1]):
        return None
    return Columns(*bounds[-1])


def seen(leaf: MappedLeaf) -> tuple[View, float] | None:
    """A native leaf as its canonical one, and what is added to it."""
    view = whole(leaf.native_shape, leaf.region)
    if leaf.item is not None:
        view = View(view.axes[1:], view.start)
    return _through(view, leaf.layout, 0.0)


def _through(view: View, layout: Layout, shift: float) -> tuple[View, float] | None:
    if isinstance(layout, Chain):
        for one in layout.layouts:
            if (found := _through(view, one, shift)) is None:
                return None
            view, shift = found
        return view, shift
    if isinstance(layout, Shift):
        return view, shift + layout.offset
    rank = len(view.axes)
    if isinstance(layout, Flip):
        return flip(view, [axis % rank for axis in layout.axes]), shift
    if isinstance(layout, Transpose):
        return transpose(view, layout.axes), shift
    if isinstance(layout, SwapAxes):
        order = list(range(rank))
        order[layout.one], order[layout.other] = order[layout.other], order[layout.one]
        return transpose(view, order), shift
    # Every other layout only regroups axes.
    found = reshape(view, layout.canonical_shape(view.shape))
    return None if found is None else (found, shift)


def without_item(
    found: Relation, shapes: Sequence[Shape], items: Sequence[int | None]
) -> tuple[Relation, tuple[Shape, Shape]]:
    """A relation and shapes, counted within one item of a stack."""
    starts = [
        start - (0 if item is None else item * strides(shape)[0])
        for start, shape, item in zip(found.starts, shapes, items, strict=True)
    ]
    rest = [shape if item is None else shape[1:] for shape, item in zip(shapes, items, strict=True)]
    return Relation((starts[0], starts[1]), found.steps), (rest[0], rest[1])


def without_columns(
    found: Relation, shapes: Sequence[Shape], columns: Sequence[Columns | None]
) -> tuple[Relation, tuple[Shape, Shape]]:
    """A relation and shapes, counted within columns."""
    sides = [_inside(found, side, shapes[side], columns[side]) for side in (0, 1)]
    (one, ours, left), (two, theirs, right) = sides
    sizes = [size for size, _, _ in found.steps]
    return Relation((one, two), tuple(zip(sizes, ours, theirs, strict=True))), (left, right)


def _inside(found: Relation, side: int, shape: Shape, columns: Columns | None) -> tuple[int, list[int], Shape]:
    """Start, steps and shape of one side, as if its leaf had those columns alone."""
    start, steps = found.starts[side], [step[1 + side] for step in found.steps]
    if columns is None:
        return start, steps, shape
    size, every = columns.stop - columns.start, shape[-1]
    # A step is either within a row, or a number of whole rows: a row of the part does not run on into the next.
    fewer = [step // every * size if abs(step) >= every else step for step in steps]
    return start // every * size + start % every - columns.start, fewer, (*shape[:-1], size)


def shifted(found: tuple[Layout, Layout], shift: float) -> tuple[Layout, Layout]:
    """Layouts with a number added to the left leaf."""
    if not shift:
        return found
    left, right = found
    return (Shift(shift) if left == Identity() else Chain((left, Shift(shift)))), right
