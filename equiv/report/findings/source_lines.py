"""The source line and the layer of the table that an equation of a traced program comes from."""

import re
from dataclasses import dataclass

from equiv.core.results import BACKWARD_PASS, CaseResult, LeafResult

FIRST_DIFFERENCE_PREFIX = "first different: "

EQUATION_PATTERN = re.compile(
    r"(?P<operation>\S+)(?: at (?P<place>.*?))?(?: with (?P<operands>.*?))?(?:, called at (?P<own>.*))?", re.DOTALL
)

LINE_PATTERN = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?(?: \(.*)?", re.DOTALL)


@dataclass(frozen=True)
class ReportedEquation:
    """One port's first equation that has no counterpart in the other port.

    Attributes:
        backend: the port.
        operation: the primitive, `dot_general`.
        place: file, line, function and module path, as in the trace.
        operands: names of program inputs, and constants.
        file: the user's file with the operation or the call into the library.
        line: the line in that file; 0 where unknown.
    """

    backend: str
    operation: str
    place: str
    operands: tuple[str, ...]
    file: str = ""
    line: int = 0

    @property
    def scope(self) -> str:
        """The module path in the trace: `model/block/batch_norm`."""
        return self.place.partition(") in ")[2]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Operands that are numbers."""
        return tuple(item for item in self.operands if re.fullmatch(r"[-+]?(\d[\d.e+-]*|inf|nan)", item))

    @property
    def names(self) -> tuple[str, ...]:
        """Operands that are inputs of the program."""
        return tuple(item for item in self.operands if item not in self.numbers)


def parse_equations(source: str, backends: tuple[str, ...]) -> tuple[ReportedEquation, ...]:
    """Parse the equations in a finding's `source`, one per backend that has one."""
    if not source.startswith(FIRST_DIFFERENCE_PREFIX):
        return ()
    words = "|".join(map(re.escape, backends))
    parts = re.split(rf"(?:^|; )({words}) (?=\S)", source.removeprefix(FIRST_DIFFERENCE_PREFIX))
    return tuple(_parse_equation(backend, text) for backend, text in zip(parts[1::2], parts[2::2], strict=True))


def _parse_equation(backend: str, text: str) -> ReportedEquation:
    found = EQUATION_PATTERN.fullmatch(text)
    if found is None:
        return ReportedEquation(backend, text, "", ())
    place, own = found["place"] or "", found["own"] or ""
    line = LINE_PATTERN.fullmatch(own or place)
    operands = tuple((found["operands"] or "").split(", ")) if found["operands"] else ()
    return ReportedEquation(
        backend, found["operation"], place, operands, line["file"] if line else "", int(line["line"]) if line else 0
    )


@dataclass(frozen=True)
class DifferenceSite:
    """An equation of one port, with its source line and its layer.

    Attributes:
        equation: as the finding names it.
        code: the source line without indentation; empty where the builder's source is unknown.
        layer: canonical path of the layer whose module is in the trace; empty where there is none.
    """

    equation: ReportedEquation
    code: str
    layer: str


def difference_sites(case: CaseResult, source: str, candidate: str) -> tuple[DifferenceSite, ...]:
    """Return the first different equations in a finding's `source`, reference first; empty where only one port has one.

    Two cases count as no divergence: an equation without any counterpart in the other port, and a line after which the
    compared intermediate values become equal again.
    """
    found = parse_equations(source, (case.reference, candidate))
    if len(found) != 2:
        return ()
    back = "transpose(" in found[0].place
    if (f"{found[0].file}:{found[0].line}", back) in _temporary_differences(case, candidate):
        return ()
    layers = [layer_of_equation(case, equation) for equation in found]
    layer = next(filter(None, layers), "")
    return tuple(
        DifferenceSite(equation, code_line(case, equation), own or layer)
        for equation, own in zip(found, layers, strict=True)
    )


def _temporary_differences(case: CaseResult, candidate: str) -> set[tuple[str, bool]]:
    """Return lines of the reference whose values the candidate lacks, although later values are equal again.

    Each with whether it belongs to the backward pass.
    """
    points = [point for check in case.checks if check.candidate == candidate for point in check.intermediates]
    places = [(point, (point.where, BACKWARD_PASS in point.name)) for point in points]
    over = {place for point, place in places if point.ratio is None or point.ratio > 1}
    return over - {place for point, place in places if point.lost}


def code_line(case: CaseResult, equation: ReportedEquation) -> str:
    """Return the source line of a builder that an equation comes from."""
    source = case.sources.get(equation.backend)
    if source is None or not is_same_file(equation.file, source.file):
        return ""
    lines = source.text.splitlines()
    at = equation.line - source.line
    return lines[at].strip() if 0 <= at < len(lines) else ""


def is_same_file(traced: str, given: str) -> bool:
    """Return whether a traced file is the given file of the case; their folders may be written differently."""
    return bool(given) and (traced == given or traced.rpartition("/")[2] == given.rpartition("/")[2])


def layer_of_equation(case: CaseResult, equation: ReportedEquation) -> str:
    """Return the layer whose module path ends the equation's scope, else the only layer whose leaves it reads."""
    scope = f"/{module_path(equation.scope)}"
    inside = [leaf.leaf for leaf in case.leaves if scope.endswith(f"/{_leaf_module(leaf, equation.backend)}")]
    taken = [leaf.leaf for leaf in case.leaves if leaf.leaf in equation.operands]
    layers = list(dict.fromkeys(leaf.rpartition("/")[0] or leaf for leaf in inside or taken))
    return layers[0] if len(layers) == 1 else ""


def module_path(scope: str) -> str:
    """Return the module path in a name stack: `transpose(jvp(Model))/Block_0/Dense_0` is `Model/Block_0/Dense_0`."""
    return re.sub(r"transpose\(|jvp\(|\)", "", scope).strip("/")


def _leaf_module(leaf: LeafResult, backend: str) -> str:
    """Return the module of a leaf as in the library's name stack, without Haiku's `~`; `?` where there is none."""
    path = leaf.places.get(backend, "").rpartition(" (")[0].replace("/~/", "/")
    return path.rpartition("/")[0] or "?"
