"""Where two programs first differ: the first equation of each port that the other does not have, with its source."""

import re
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class SourceLine:
    """A line of Python code that an equation of a traced program comes from.

    Attributes:
        file: relative to the working folder or to site-packages where it is below one of them.
        line: its number.
        column: where in it the expression begins; 0 if unknown.
        function: qualified name of the function that it is in; empty if unknown.
    """

    file: str
    line: int
    column: int = 0
    function: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse `FILE:LINE`, `FILE:LINE:COLUMN` or either with ` (FUNCTION)`, as jax summarises a frame; else None."""
        found = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?(?: \((.*)\))?", text, re.DOTALL)
        return cls(found[1], int(found[2]), int(found[3] or 0), found[4] or "") if found else None

    @property
    def short(self) -> str:
        """`FILE:LINE`."""
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        """`FILE:LINE:COLUMN (FUNCTION)`, as far as known."""
        column = f":{self.column}" if self.column else ""
        return f"{self.short}{column}{f' ({self.function})' if self.function else ''}"


OPTIMIZER = "the optimizer"
"""In place of a layer: how a train step updates."""


@dataclass(frozen=True)
class FirstDifference:
    """The first equation of one port whose operands occur in both programs and whose result does not.

    Attributes:
        port: name of the port.
        primitive: such as `dot_general`.
        operands: those that are inputs of the program, by name.
        constants: those that are numbers, to six digits; as text, since JSON has no infinity.
        location: the line with the operation, often inside a library; None if unknown.
        call_site: the user's line that calls into the library; None where `location` is the user's own, or if unknown.
        name_stack: modules and transforms around the equation, such as `transpose(jvp(Model))/Dense_0`.
        layer: canonical path of the layer whose leaves are used next to it, or `OPTIMIZER`; empty if unknown.
        module: path of that layer in this port's library, else the module that is in the name stack.
        turn: in which iteration of the loops around it, outermost first, counted from 0.
    """

    port: str
    primitive: str
    operands: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    location: SourceLine | None = None
    call_site: SourceLine | None = None
    name_stack: str = ""
    layer: str = ""
    module: str = ""
    turn: tuple[int, ...] = ()

    @property
    def user_line(self) -> SourceLine | None:
        """The line to look at first: the user's own if there is one, else the library's."""
        return self.call_site or self.location

    @property
    def inputs(self) -> tuple[str, ...]:
        """Operands and constants."""
        return self.operands + self.constants

    @property
    def module_path(self) -> str:
        """The name stack without transforms."""
        return strip_transforms(self.name_stack)

    @property
    def backward(self) -> bool:
        """Whether the equation belongs to the backward pass."""
        return is_backward(self.name_stack)

    @property
    def place(self) -> str:
        """Location and name stack, as far as known."""
        stack = f"in {self.name_stack}" if self.name_stack else ""
        return " ".join(filter(None, (str(self.location or ""), stack)))

    def __str__(self) -> str:
        """The port, the primitive, its place, its operands and the user's line, in one phrase."""
        at = f" at {self.place}" if self.location else ""
        given = f" with {', '.join(self.inputs)}" if self.inputs else ""
        called = f", called at {self.call_site.short}" if self.call_site else ""
        return f"{self.port} {self.primitive}{at}{given}{called}"


def strip_transforms(name_stack: str) -> str:
    """Return the modules of a name stack: `transpose(jvp(Model))/Block_0/Dense_0` is `Model/Block_0/Dense_0`."""
    return re.sub(r"transpose\(|jvp\(|\)", "", name_stack).strip("/")


def is_backward(name_stack: str) -> bool:
    """Return whether an equation with this name stack belongs to the backward pass."""
    return "transpose(" in name_stack
