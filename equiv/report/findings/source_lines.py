"""The source line and the layer of the table that an equation of a traced program comes from."""

from dataclasses import dataclass

from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.results import CaseResult, Finding, LeafResult
from equiv.report.findings.divergences import find_case_divergences


@dataclass(frozen=True)
class DifferenceSite:
    """An equation of one port, with its source line and its layer.

    Attributes:
        equation: one of the finding's `first_differences`.
        code: the source line without indentation; empty where the builder's source is unknown.
        layer: canonical path of the layer whose module is in the trace; empty where there is none.
    """

    equation: FirstDifference
    code: str
    layer: str


def difference_sites(case: CaseResult, finding: Finding, candidate: str) -> tuple[DifferenceSite, ...]:
    """Return the first different equations of a finding, reference first; empty where only one port has one.

    Two cases count as no divergence: an equation without any counterpart in the other port, and a line after which the
    compared intermediate values become equal again.
    """
    found = finding.first_differences
    if len(found) != 2:
        return ()
    line = found[0].user_line
    if (
        line
        and not find_case_divergences(case, candidate)
        and (line.short, found[0].backward) in _temporary_differences(case, candidate)
    ):
        return ()
    layers = [layer_of_equation(case, equation) for equation in found]
    layer = next(filter(None, layers), "")
    return tuple(
        DifferenceSite(equation, code_line(case, equation), own or layer)
        for equation, own in zip(found, layers, strict=True)
    )


SiteKey = tuple[str, SourceLine | None]
"""What sites of one cause share: primitive and line, not the operands."""


def site_key(site: DifferenceSite) -> SiteKey:
    """Return the primitive and the line of a site."""
    line = site.equation.user_line
    return site.equation.primitive, line and SourceLine(line.file, line.line)


def _temporary_differences(case: CaseResult, candidate: str) -> set[tuple[str, bool]]:
    """Return lines of the reference whose values the candidate lacks, although later values are equal again.

    Each with whether it belongs to the backward pass.
    """
    points = [point for check in case.checks if check.candidate == candidate for point in check.intermediates]
    places = [(point, (point.location.short, point.backward)) for point in points if point.location]
    over = {place for point, place in places if point.ratio is None or point.ratio > 1}
    return over - {place for point, place in places if point.lost}


def code_line(case: CaseResult, equation: FirstDifference) -> str:
    """Return the source line of a builder that an equation comes from."""
    source, line = case.sources.get(equation.port), equation.user_line
    if source is None or line is None or not is_same_file(line.file, source.file):
        return ""
    lines = source.text.split("\n")
    at = line.line - source.line
    return lines[at].strip() if 0 <= at < len(lines) else ""


def is_same_file(traced: str, given: str) -> bool:
    """Return whether a traced file is the given file of the case; their folders may be written differently."""
    return bool(given) and (traced == given or traced.rpartition("/")[2] == given.rpartition("/")[2])


def layer_of_equation(case: CaseResult, equation: FirstDifference) -> str:
    """Return the layer of an equation: its own, the one in its module path, or the only one whose leaves it reads."""
    if equation.layer:
        return equation.layer
    modules = f"/{equation.module_path}"
    inside = [leaf.leaf for leaf in case.leaves if modules.endswith(f"/{_leaf_module(leaf, equation.port)}")]
    taken = [leaf.leaf for leaf in case.leaves if leaf.leaf in equation.operands]
    layers = list(dict.fromkeys(leaf.rpartition("/")[0] or leaf for leaf in inside or taken))
    return layers[0] if len(layers) == 1 else ""


def _leaf_module(leaf: LeafResult, backend: str) -> str:
    """Return the module of a leaf as in the library's name stack, without Haiku's `~`; `?` where there is none."""
    path = leaf.places.get(backend, "").rpartition(" (")[0].replace("/~/", "/")
    return path.rpartition("/")[0] or "?"
