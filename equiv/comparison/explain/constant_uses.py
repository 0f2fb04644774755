"""Where a program uses which constants: by operation, module, and line of the user and of the library."""

from collections.abc import Iterator
from dataclasses import dataclass

from equiv.comparison.explain.recording import Operation, Recording
from equiv.core.first_difference import SourceLine, strip_transforms
from equiv.programs.jaxpr import locate_equation


@dataclass(frozen=True, eq=False)
class ConstantUse:
    """One number among the operands of an operation.

    Attributes:
        operation: in the first iteration of the loops around it.
        index: of the operand.
        number: the constant.
        location: the line of the operation, often a library's.
        user_line: the user's own line behind it.
        module: the module that it is in, of the name stack.
    """

    operation: Operation
    index: int
    number: float
    location: SourceLine | None
    user_line: SourceLine | None
    module: str

    @property
    def line(self) -> str:
        """The line of the operation with its column and function."""
        return str(self.location or "")

    @property
    def file(self) -> str:
        """The file of that line."""
        return "" if self.location is None else self.location.file

    @property
    def function(self) -> str:
        """The outermost function around that line, as `scale_by_adam`."""
        return "" if self.location is None else self.location.function.partition(".")[0]

    @property
    def is_of_library(self) -> bool:
        """Whether the line is not the user's own."""
        own, user = self.location, self.user_line
        return own is not None and (user is None or own.short != user.short)


def find_constants(recording: Recording) -> Iterator[ConstantUse]:
    """Yield every use of a number in a run; of a loop those of one iteration.

    Args:
        recording: the run.
    """
    seen = set[tuple[object, ...]]()
    for operation in recording.operations:
        numbers = [
            (index, recording.numbers[value]) for index, value in enumerate(operation.ins) if value in recording.numbers
        ]
        if not numbers or len(operation.ins) < 2 or operation.kind or operation.key in seen:
            continue
        seen.add(operation.key)
        location, user_line, stack = locate_equation(operation.place)
        for index, number in numbers:
            yield ConstantUse(operation, index, number, location, user_line, strip_transforms(stack))
