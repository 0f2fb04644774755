"""Where in the user's own code an equation comes from: the line as it is written, and the layer of the table."""

import re
from dataclasses import dataclass

from equiv.core.results import BACK, CaseResult, LeafResult

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


@dataclass(frozen=True)
class Site:
    """An equation of one port, with what the case knows of its place.

    Attributes:
        equation: as the finding tells it.
        code: the user's line, without its indentation; empty where the builder's source is not known.
        layer: canonical path of the layer whose module the trace names; empty where it names none.
    """

    equation: Equation
    code: str
    layer: str


def sites(case: CaseResult, source: str, candidate: str) -> tuple[Site, ...]:
    """The first different equations that a finding's `source` names, reference first; none where only one port has one.

    What the other port has nothing like at all is no place where both part; neither is a line from which the way
    through the network shows another way to the same.
    """
    found = equations(source, (case.reference, candidate))
    if len(found) != 2:
        return ()
    back = "transpose(" in found[0].place
    if (f"{found[0].file}:{found[0].line}", back) in _ways_around(case, candidate):
        return ()
    layers = [layer_of(case, equation) for equation in found]
    layer = next(filter(None, layers), "")
    return tuple(
        Site(equation, code_at(case, equation), own or layer) for equation, own in zip(found, layers, strict=True)
    )


def _ways_around(case: CaseResult, candidate: str) -> set[tuple[str, bool]]:
    """Lines of the reference whose values the candidate does not have, though it has what is made of them.

    Each with whether it is meant on the way back, in the gradient.
    """
    points = [point for check in case.checks if check.candidate == candidate for point in check.walk]
    places = [(point, (point.where, BACK in point.name)) for point in points]
    over = {place for point, place in places if point.ratio is None or point.ratio > 1}
    return over - {place for point, place in places if point.lost}


def code_at(case: CaseResult, equation: Equation) -> str:
    """The line of a builder that an equation stands at."""
    source = case.sources.get(equation.backend)
    if source is None or not is_file(equation.file, source.file):
        return ""
    lines = source.text.splitlines()
    at = equation.line - source.line
    return lines[at].strip() if 0 <= at < len(lines) else ""


def is_file(traced: str, given: str) -> bool:
    """Whether a file of a trace is a case's: a trace may have it from another folder on."""
    return bool(given) and (traced == given or traced.rpartition("/")[2] == given.rpartition("/")[2])


def layer_of(case: CaseResult, equation: Equation) -> str:
    """The layer whose module the trace of an equation ends with, else the one layer whose leaves it takes."""
    scope = f"/{module_of(equation.scope)}"
    inside = [leaf.leaf for leaf in case.leaves if scope.endswith(f"/{_module(leaf, equation.backend)}")]
    taken = [leaf.leaf for leaf in case.leaves if leaf.leaf in equation.operands]
    layers = list(dict.fromkeys(leaf.rpartition("/")[0] or leaf for leaf in inside or taken))
    return layers[0] if len(layers) == 1 else ""


def module_of(scope: str) -> str:
    """The module path in a name stack: `transpose(jvp(Model))/Block_0/Dense_0` is `Model/Block_0/Dense_0`."""
    return re.sub(r"transpose\(|jvp\(|\)", "", scope).strip("/")


def _module(leaf: LeafResult, backend: str) -> str:
    """The module of a leaf in a library, as its name stack has it: without Haiku's `~`; what fits none: `?`."""
    path = leaf.places.get(backend, "").rpartition(" (")[0].replace("/~/", "/")
    return path.rpartition("/")[0] or "?"
