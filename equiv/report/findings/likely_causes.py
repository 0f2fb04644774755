"""What a reader asks of a refusal: which side is off, and what is it likely to be. Said only from what was found."""

from equiv.core.headline import severity
from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.report.findings.source_lines import Equation, Site, sites

REFUSED = ("refuted", "error")


ORDER = ("eval ", "call ", "train ", "gradient ", "train:")
"""Programs from the simplest on: where a simple one differs it explains the others."""


def refused(case: CaseResult, candidate: str) -> list[tuple[CheckResult, Finding]]:
    """The refused findings of a candidate: in the order of the checks, simple programs and large ratios first."""
    found = [
        (check, finding)
        for check in case.checks
        if check.candidate == candidate
        for finding in check.findings
        if finding.grade in REFUSED
    ]
    checks = list(dict.fromkeys(check.check for check in case.checks))
    return sorted(found, key=lambda pair: (checks.index(pair[0].check), _rank(pair[1].place), -severity(pair[1])))


def _rank(place: str) -> int:
    return next((index for index, word in enumerate(ORDER) if place.startswith(word)), len(ORDER))


def side(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    """Which port is off: by the vote of the other candidates, and by each port's own float64 run."""
    return " ".join(filter(None, (_vote(case, check, finding), _rounding(case, check, finding))))


def _vote(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    mine, reference = check.candidate, case.reference
    others = [one for one in case.checks if one.check == check.check and one.candidate != mine]
    agree, alike = [], []
    for other in others:
        theirs = [item for item in other.findings if item.place == finding.place]
        if theirs and all(item.grade not in REFUSED for item in theirs):
            agree.append(other.candidate)
        elif finding.candidate and any(item.candidate == finding.candidate for item in theirs):
            alike.append(other.candidate)
    if agree:
        return f"{listed((reference, *agree))} agree here, {mine} stands alone: look at {mine}."
    if alike:
        return f"{listed((mine, *alike))} give the same value here, {reference} stands alone: look at {reference}."
    if others:
        return f"No other candidate is like either of them here; {reference} is the reference."
    return f"{reference} is the reference; there is no third port to vote."


def _rounding(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    rounded = finding.spread.rounded if finding.spread else ()
    if len(rounded) != 2:
        return ""
    away = (
        f"{case.reference} is {_ulps(rounded[0])} away from its own float64 run, {check.candidate} {_ulps(rounded[1])}"
    )
    if finding.precision == "float64":
        return f"{away}: it is the formulas that differ, not the rounding."
    return f"{away}: the same formula, rounded otherwise."


def _ulps(number: float) -> str:
    return f"{number:.2g} ulp"


def parting(case: CaseResult, candidate: str) -> str:
    """From which value on the candidate computes others; empty where that was not looked for or is not so."""
    walks = [check.walk for check in case.checks if check.candidate == candidate and check.walk]
    for points in walks[:1]:
        at = next((index for index, point in enumerate(points) if point.lost), None)
        if at is not None:
            line = f" ({points[at].where})" if points[at].where else ""
            before = (
                f"the first {at} of {len(points)} values are alike" if at else f"none of {len(points)} values is alike"
            )
            return f"{before}; from {points[at].name}{line} on they are not"
    return ""


def causes(case: CaseResult, candidate: str) -> tuple[str, ...]:
    """Likely causes, the strongest first, each with what it is read from; none where nothing points anywhere."""
    hints: dict[str, list[str]] = {}
    for check, finding in refused(case, candidate):
        told, about = _cause(case, check, finding)
        if told:
            hints.setdefault(told, []).append(about)
    return tuple(told.format(listed(_few(about))) for told, about in hints.items())[:MOST]


MOST, FEW = 3, 4
"""Causes that are told of one candidate, and places that are named with one of them."""


def _few(about: list[str]) -> tuple[str, ...]:
    once = tuple(dict.fromkeys(about))
    return once if len(once) <= FEW else (*once[: FEW - 1], f"{len(once) - FEW + 1} more")


def _cause(case: CaseResult, check: CheckResult, finding: Finding) -> tuple[str, str]:
    """A sentence with `{}` for what it is about, and that; places of one cause share its sentence."""
    place, who = finding.place, check.candidate
    if check.check == "structure" or finding.grade == "error" or finding.error is None:
        return _escaped(f"{place}: {finding.note}" if finding.note else place), place
    relation = finding.spread.relation if finding.spread else ""
    if relation == "all zero" and ": gradient " in place:
        told = f"no gradient reaches {{}} in {who} (0 everywhere): a stop_gradient or detached value after it, "
        return told + "or it is left out of what is differentiated", place.partition(": gradient ")[2]
    if relation == "unchanged by every step":
        told = f"{who}'s training never changes {{}}: the update is dropped, or the old value is returned"
        return told, place.removeprefix("train: ")
    if relation:
        return f"{who} gives {_escaped(relation)} at {{}}", place
    return _escaped(by_sites(sites(case, finding.source, who))), place


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def by_sites(pair: tuple[Site, ...]) -> str:
    """What the first different equations of both ports say in words; empty where that is no cause by itself."""
    if len(pair) != 2:
        return ""
    left, right = (site.equation for site in pair)
    at = _at(pair[1])
    if left.operation != right.operation:
        return f"another operation: {_of(left)} in {left.backend}, {_of(right)} in {right.backend}{at}"
    if left.names != right.names and left.names and right.names:
        ours, theirs = (
            listed(tuple(item for item in one.names if item not in other.names))
            for one, other in ((left, right), (right, left))
        )
        return (
            f"another leaf at the same place: {left.operation} takes {ours} in {left.backend}, {theirs} in "
            f"{right.backend}: two leaves are swapped in the code or in the layer table{at}"
        )
    if left.numbers != right.numbers and left.numbers and right.numbers:
        ours, theirs = (listed(one.numbers) for one in (left, right))
        return f"another constant in {left.operation}: {ours} in {left.backend}, {theirs} in {right.backend}{at}"
    return ""


def _at(site: Site) -> str:
    """The layer and the user's own line."""
    layer = f"layer {site.layer}" if site.layer else ""
    line = f"{site.equation.file}:{site.equation.line}" if site.equation.line else ""
    code = f" `{site.code}`" if site.code else ""
    told = ", ".join(filter(None, (layer, f"{line}{code}".strip())))
    return f"; {told}" if told else ""


def _of(equation: Equation) -> str:
    return f"{equation.operation} of {listed(equation.operands)}" if equation.operands else equation.operation


def listed(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"
