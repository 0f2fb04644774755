"""Which axes of the arrays of a reproduction have one size, so that all of them can be cut together."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from equiv.programs.primitives import ARG_REDUCTIONS, CUMULATIVE, ELEMENTWISE, IDENTITIES, REDUCTIONS, WINDOWED

Shape = tuple[int, ...]

Array = tuple[int, int]
"""The side and the number of a value; the arrays that both are given have a side of their own."""

Axis = tuple[int, int, int]
"""An array and one of its axes."""

KEPT_REDUCTIONS = frozenset(["reduce_max", "reduce_min", "reduce_and", "reduce_or"])
"""Reductions after which nothing depends on how many there were: a mean divides by a number that stands in the code."""


LOOP_SLICE = "slice of a loop"
"""The operation that takes one slice of the first axis for an iteration of a loop."""


class AxisClasses:
    """Axes that have one size in every operation that relates them.

    Attributes:
        sizes: axis to its size.
    """

    def __init__(self) -> None:
        self.sizes: dict[Axis, int] = {}
        self._parents: dict[Axis, Axis] = {}
        self._frozen: set[Axis] = set()
        self._summed: set[Axis] = set()
        self._reduced: set[Axis] = set()

    def add(self, array: Array, shape: Shape) -> None:
        """Add the axes of an array."""
        for axis, size in enumerate(shape):
            self.sizes.setdefault((*array, axis), size)

    def find(self, axis: Axis) -> Axis:
        """The axis that stands for all that are cut with one."""
        while (parent := self._parents.get(axis, axis)) != axis:
            axis = parent
        return axis

    def tie(self, one: Axis, other: Axis) -> None:
        """Cut two axes together; those of two sizes never."""
        if self.sizes[one] != self.sizes[other]:
            self.freeze(one)
            self.freeze(other)
            return
        first, second = self.find(one), self.find(other)
        if first != second:
            self._parents[second] = first
            if second in self._frozen:
                self._frozen.add(first)

    def freeze(self, axis: Axis) -> None:
        """Never cut an axis."""
        self._frozen.add(self.find(axis))

    def free(self) -> list[Axis]:
        """One axis of every class that may be cut, the largest first."""
        found = {self.find(axis) for axis in self.sizes}
        free = [axis for axis in found if axis not in self._frozen and self.sizes[axis] > 1]
        return sorted(free, key=lambda axis: (-self.sizes[axis], axis))

    def freeze_reduced(self) -> None:
        """Never cut an axis that an operation reduces: of an array that was made of another one that would be wrong."""
        for axis in (*self._summed, *self._reduced):
            self.freeze(axis)

    def freeze_means(self, numbers: Collection[float]) -> None:
        """Never cut an axis that products sum over where its size, or one less, stands in the code as a number."""
        for axis in self._summed:
            size = self.sizes[axis]
            least = [size, *([size - 1] if size > 2 else [])]
            if any(one in numbers or 1 / one in numbers for one in least):
                self.freeze(axis)

    def shape_of(self, array: Array, shape: Shape, cut: Mapping[Axis, int]) -> Shape:
        """The shape of an array where some classes have another size."""
        return tuple(
            cut.get(self.find((*array, axis)), size) if (*array, axis) in self.sizes else size
            for axis, size in enumerate(shape)
        )

    def tie_arrays(self, one: tuple[Array, Shape], other: tuple[Array, Shape]) -> None:
        """Relate the axes of two arrays with the same elements in the same order."""
        for first, second in _aligned_axes(one[1], other[1]):
            self.tie((*one[0], first), (*other[0], second))
        self._freeze_others(one, [pair[0] for pair in _aligned_axes(one[1], other[1])])
        self._freeze_others(other, [pair[1] for pair in _aligned_axes(one[1], other[1])])

    def _freeze_others(self, one: tuple[Array, Shape], tied: Sequence[int]) -> None:
        for axis, size in enumerate(one[1]):
            if axis not in tied and size > 1:
                self.freeze((*one[0], axis))

    def relate(
        self,
        primitive: str,
        params: Mapping[str, Any],
        ins: Sequence[tuple[Array, Shape]],
        outs: Sequence[tuple[Array, Shape]],
    ) -> None:
        """Relate the axes of an operation's operands and results.

        Args:
            primitive: its name.
            params: its parameters.
            ins: its operands, each with its shape.
            outs: its results.
        """
        for array, shape in (*ins, *outs):
            self.add(array, shape)
        for array, kept, place in _kept_axes(primitive, params, ins, outs):
            tied = []
            for first, second in kept:
                self.tie((*ins[array][0], first), (*outs[place][0], second))
                tied.append(first)
        self._freeze_rest(primitive, params, ins, outs)

    def _freeze_rest(
        self,
        primitive: str,
        params: Mapping[str, Any],
        ins: Sequence[tuple[Array, Shape]],
        outs: Sequence[tuple[Array, Shape]],
    ) -> None:
        """Freeze the axes of which nothing is known."""
        pairs = list(_kept_axes(primitive, params, ins, outs))
        known_ins = {(array, first) for array, kept, _ in pairs for first, _ in kept}
        known_outs = {(place, second) for _, kept, place in pairs for _, second in kept}
        if primitive == "dot_general":
            known_ins |= self._tie_contracted(params, ins)
        if primitive == "conv_general_dilated":
            known_ins |= self._tie_channels(params, ins)
        if primitive in KEPT_REDUCTIONS or primitive in ARG_REDUCTIONS:
            known_ins |= {(0, int(axis)) for axis in params["axes"]}
            self._reduced.update((*ins[0][0], int(axis)) for axis in params["axes"])
        if primitive in ("broadcast_in_dim", "iota"):
            known_outs |= {(0, axis) for axis in range(len(outs[0][1]))}
        for sides, known in ((ins, known_ins), (outs, known_outs)):
            for number, (array, shape) in enumerate(sides):
                for axis, size in enumerate(shape):
                    if (number, axis) not in known and size > 1:
                        self.freeze((*array, axis))

    def _tie_contracted(self, params: Mapping[str, Any], ins: Sequence[tuple[Array, Shape]]) -> set[tuple[int, int]]:
        (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
        pairs = list(zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True))
        for one, other in pairs:
            self.tie((*ins[0][0], int(one)), (*ins[1][0], int(other)))
        self._summed.update((*ins[0][0], int(one)) for one in left_sum)
        return {(0, int(one)) for one, _ in pairs} | {(1, int(other)) for _, other in pairs}

    def _tie_channels(self, params: Mapping[str, Any], ins: Sequence[tuple[Array, Shape]]) -> set[tuple[int, int]]:
        if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
            return set()
        numbers = params["dimension_numbers"]
        one, other = int(numbers.lhs_spec[1]), int(numbers.rhs_spec[1])
        self.tie((*ins[0][0], one), (*ins[1][0], other))
        self._summed.add((*ins[0][0], one))
        return {(0, one), (1, other)}


Kept = tuple[int, list[tuple[int, int]], int]
"""The number of an operand, its axes with those of a result that they become, and the number of that result."""


def _kept_axes(
    primitive: str, params: Mapping[str, Any], ins: Sequence[tuple[Array, Shape]], outs: Sequence[tuple[Array, Shape]]
) -> list[Kept]:
    """The axes of operands that are axes of results with as many elements."""
    shapes, out = [shape for _, shape in ins], outs[0][1]
    if primitive in ELEMENTWISE or primitive in IDENTITIES or primitive in CUMULATIVE or primitive in ("rev", "sort"):
        return _same_axes(shapes, outs)  # an axis of one element is repeated
    if primitive in REDUCTIONS or primitive in ARG_REDUCTIONS:
        kept = [axis for axis in range(len(shapes[0])) if axis not in params["axes"]]
        return [(0, [(axis, at) for at, axis in enumerate(kept)], 0)]
    if primitive == "broadcast_in_dim":
        axes = enumerate(map(int, params["broadcast_dimensions"]))
        return [(0, [(one, other) for one, other in axes if shapes[0][one] == out[other]], 0)]
    if primitive == "transpose":
        return [(0, [(int(axis), at) for at, axis in enumerate(params["permutation"])], 0)]
    if primitive == LOOP_SLICE:
        return [(0, [(axis + 1, axis) for axis in range(len(out))], 0)]
    if primitive in ("reshape", "squeeze"):
        return [(0, _aligned_axes(shapes[0], out), 0)]
    if primitive in WINDOWED and "window_dimensions" in params:
        whole = [
            axis for axis, size in enumerate(params["window_dimensions"]) if size == 1 and shapes[0][axis] == out[axis]
        ]
        return [(0, [(axis, axis) for axis in whole], 0)]
    if primitive in ("slice", "pad", "concatenate", "split", "dynamic_slice"):
        return _same_axes(shapes, outs)
    if primitive == "dot_general":
        return _kept_of_dot(params, shapes)
    if primitive == "conv_general_dilated" and params["batch_group_count"] == 1:
        numbers = params["dimension_numbers"]
        out_batch, out_feature = int(numbers.out_spec[0]), int(numbers.out_spec[1])
        kept = [(0, [(int(numbers.lhs_spec[0]), out_batch)], 0)]
        grouped = params["feature_group_count"] != 1
        return kept if grouped else [*kept, (1, [(int(numbers.rhs_spec[0]), out_feature)], 0)]
    return []


def _same_axes(shapes: Sequence[Shape], outs: Sequence[tuple[Array, Shape]]) -> list[Kept]:
    """Axes at one place with as many elements."""
    return [
        (number, [(axis, axis) for axis, size in enumerate(shape) if size == other[axis]], place)
        for number, shape in enumerate(shapes)
        for place, (_, other) in enumerate(outs)
        if len(shape) == len(other)
    ]


def _kept_of_dot(params: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Kept]:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    batch = len(left_batch)
    kept: list[Kept] = [
        (0, [(int(axis), at) for at, axis in enumerate(left_batch)], 0),
        (1, [(int(axis), at) for at, axis in enumerate(right_batch)], 0),
    ]
    at = batch
    for number, used in ((0, (*left_sum, *left_batch)), (1, (*right_sum, *right_batch))):
        free = [axis for axis in range(len(shapes[number])) if axis not in used]
        kept.append((number, [(axis, at + n) for n, axis in enumerate(free)], 0))
        at += len(free)
    return kept


def _aligned_axes(one: Shape, other: Shape) -> list[tuple[int, int]]:
    """The axes of two shapes with the same elements in the same order that are the same axis."""
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(one) and j < len(other):
        if one[i] == other[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif one[i] == 1:
            i += 1
        elif other[j] == 1:
            j += 1
        else:  # several axes became others: those up to where both have as many elements
            first, second = one[i], other[j]
            while first != second:
                if first < second:
                    i += 1
                    first *= one[i]
                else:
                    j += 1
                    second *= other[j]
            i, j = i + 1, j + 1
    return found
