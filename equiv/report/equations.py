"""The sentence on the first different equations, taken apart: operation, place, operands and the user's own line."""

import re
from dataclasses import dataclass

PREFIX = "first different: "

EQUATION = re.compile(
    r"(?P<operation>\S+)(?: at (?P<place>.*?))?(?: with (?P<operands>.*?))?(?:, called at (?P<own>.*))?", re.DOTALL
)

LINE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?(?: \(.*)?", re.DOTALL)


@dataclass(frozen=True)
class Equation:
    """One port's first equation that the other has nothing like.

    Attributes:
        backend: whose.
        operation: the primitive, `dot_general`.
        place: file, line, function and module path, as the trace has them.
        operands: inputs of the program by name, and numbers.
        file: the user's own file, where the operation or the call of the library stands.
        line: the line there; 0 where it is not known.
    """

    backend: str
    operation: str
    place: str
    operands: tuple[str, ...]
    file: str = ""
    line: int = 0

    @property
    def scope(self) -> str:
        """The module path that the library leaves in the trace: `model/block/batch_norm`."""
        return self.place.partition(") in ")[2]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Operands that are numbers."""
        return tuple(item for item in self.operands if re.fullmatch(r"[-+]?(\d[\d.e+-]*|inf|nan)", item))

    @property
    def names(self) -> tuple[str, ...]:
        """Operands that are inputs of the program."""
        return tuple(item for item in self.operands if item not in self.numbers)


def equations(source: str, backends: tuple[str, ...]) -> tuple[Equation, ...]:
    """The equations that a finding's `source` speaks of, one for each backend that has one; as written by `locate`."""
    if not source.startswith(PREFIX):
        return ()
    words = "|".join(map(re.escape, backends))
    parts = re.split(rf"(?:^|; )({words}) (?=\S)", source.removeprefix(PREFIX))
    return tuple(_equation(backend, text) for backend, text in zip(parts[1::2], parts[2::2], strict=True))


def _equation(backend: str, text: str) -> Equation:
    found = EQUATION.fullmatch(text)
    if found is None:
        return Equation(backend, text, "", ())
    place, own = found["place"] or "", found["own"] or ""
    line = LINE.fullmatch(own or place)
    operands = tuple((found["operands"] or "").split(", ")) if found["operands"] else ()
    return Equation(
        backend, found["operation"], place, operands, line["file"] if line else "", int(line["line"]) if line else 0
    )
