"""The text of a reproduction: two functions, what they are given, and a comparison of what they return."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from equiv.comparison.explain.recording import SLICE, STACK, Operation
from equiv.comparison.explain.reproduction.axes import LOOP_SLICE, Array, Axis, AxisClasses
from equiv.comparison.explain.reproduction.expressions import Result, WrittenValue, fill
from equiv.comparison.explain.reproduction.segments import Segment, Segments
from equiv.comparison.explain.reproduction.writer import CodeWriter
from equiv.programs.jaxpr import locate_equation

GIVEN = 2
"""The side of arrays that both sides are given."""


@dataclass(frozen=True, eq=False)
class Functions:
    """The functions of both sides as code.

    Attributes:
        text: of both.
        arrays: name to array that they are given.
    """

    text: str
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Draft:
    """Both sides, with the axes that can be cut.

    Attributes:
        segments: both sides.
        names: of both ports.
        axes: which axes have one size.
    """

    segments: Segments
    names: tuple[str, str]
    axes: AxisClasses = field(default_factory=AxisClasses)

    def __post_init__(self) -> None:
        given = self.segments.given
        for number, one in enumerate(given):
            self.axes.add((GIVEN, number), one.array.shape)
        for side, segment in enumerate((self.segments.reference, self.segments.candidate)):
            for value, shape in segment.shapes.items():
                self.axes.add((side, value), shape)
            for value, number in segment.given.items():
                pair = ((GIVEN, number), given[number].array.shape), ((side, value), segment.shapes[value])
                self.axes.tie_arrays(*pair)
            for operation in segment.operations:
                self._relate(side, segment, operation)
        ends = self.segments.reference, self.segments.candidate
        results = [((side, one.result), one.shapes[one.result]) for side, one in enumerate(ends)]
        self.axes.tie_arrays(results[0], results[1])
        if self.segments.related:
            self.axes.freeze_reduced()
        self.axes.freeze_means({float(array.flat[0]) for one in ends for array in one.numbers.values() if array.size})

    def _relate(self, side: int, segment: Segment, operation: Operation) -> None:
        ins = [((side, value), segment.shapes[value]) for value in operation.ins]
        outs = [
            ((side, value), result.shape)
            for value, result in zip(operation.outs, _results(segment, operation), strict=True)
        ]
        name = LOOP_SLICE if operation.kind == SLICE else operation.kind or operation.primitive
        self.axes.relate(name, operation.eqn.params, ins, outs)

    def write(self, cut: Mapping[Axis, Sequence[int]]) -> Functions:
        """Write both functions.

        Args:
            cut: axis that stands for its class to the indices that are left of it.

        Raises:
            EquivError: an operation cannot be written.
        """
        sizes = {axis: len(indices) for axis, indices in cut.items()}
        kept: dict[str, np.ndarray] = {}

        def keep(array: np.ndarray) -> str:
            name = f"c{len(kept)}"
            kept[name] = array
            return f'data["{name}"]'

        ends = self.segments.reference, self.segments.candidate
        parts = [self._write_side(side, segment, sizes, CodeWriter(keep)) for side, segment in enumerate(ends)]
        given = {f"x{number}": self._cut_array(number, cut) for number in range(len(self.segments.given))}
        return Functions("\n\n\n".join("\n".join(part) for part in parts), given | kept)

    def _cut_array(self, number: int, cut: Mapping[Axis, Sequence[int]]) -> np.ndarray:
        array = self.segments.given[number].array
        for axis in range(array.ndim):
            if (indices := cut.get(self.axes.find((GIVEN, number, axis)))) is not None:
                array = np.take(array, indices, axis)
        return np.ascontiguousarray(array)

    def _write_side(self, side: int, segment: Segment, sizes: Mapping[Axis, int], writer: CodeWriter) -> list[str]:
        written: dict[int, WrittenValue] = {}

        def shape_of(array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
            return self.axes.shape_of(array, shape, sizes)

        for value, number in segment.given.items():
            given, shape = self.segments.given[number].array, shape_of((side, value), segment.shapes[value])
            own = shape_of((GIVEN, number), given.shape)
            text = f"x{number}" if own == shape else f"x{number}.reshape({shape})"
            written[value] = WrittenValue(text, shape, segment.dtypes[value])
        for value, array in segment.numbers.items():
            written[value] = fill(array.flat[0], shape_of((side, value), array.shape), segment.dtypes[value])
        said = ""
        for operation in segment.operations:
            ins = [written[value] for value in operation.ins]
            outs = [
                Result(shape_of((side, value), result.shape), result.dtype)
                for value, result in zip(operation.outs, _results(segment, operation), strict=True)
            ]
            line = _line_of(operation)
            made = _write_operation(writer, segment, operation, ins, outs, "" if line == said else line)
            said = line
            written.update(zip(operation.outs, made, strict=True))
        names = sorted({f"x{number}" for number in segment.given.values()}, key=lambda name: int(name[1:]))
        head = f"def {FUNCTIONS[side]}({', '.join(names)}):  # {self.names[side]}"
        shape = shape_of(
            (0, self.segments.reference.result), self.segments.reference.shapes[self.segments.reference.result]
        )
        result = written[segment.result]
        text = result.text if result.shape == shape else f"{result.text}.reshape({shape})"
        return [head, *writer.lines, f"    return {text}"]


FUNCTIONS = ("reference", "candidate")


def _write_operation(
    writer: CodeWriter,
    segment: Segment,
    operation: Operation,
    ins: list[WrittenValue],
    outs: list[Result],
    comment: str,
) -> Sequence[WrittenValue]:
    if operation.kind == SLICE:
        return writer.assign(f"{ins[0].text}[{segment.indices[operation]}]", outs, comment)
    if operation.kind == STACK:
        return writer.assign(f"jnp.stack([{', '.join(one.text for one in ins)}])", outs, comment)
    if operation.primitive == "scan":
        return writer.scan(operation.eqn, ins)
    return writer.write(operation.primitive, operation.eqn.params, ins, outs, comment)


def _results(segment: Segment, operation: Operation) -> list[Result]:
    return [Result(segment.shapes[value], segment.dtypes[value]) for value in operation.outs]


def _line_of(operation: Operation) -> str:
    line, user_line, _ = locate_equation(operation.place)
    shown = user_line or line
    return shown.short if shown else ""
