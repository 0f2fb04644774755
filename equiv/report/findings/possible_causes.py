"""Why a candidate differs: which port is likely wrong, and the causes, all derived from the findings alone."""

from dataclasses import replace

from equiv.core.first_difference import FirstDifference
from equiv.core.headline import follows_training, severity
from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.report.findings.divergences import describe_tried_causes, find_case_divergences
from equiv.report.findings.source_lines import DifferenceSite, difference_sites

FAILED_GRADES = ("refuted", "error")

SIMPLE_PROGRAMS_FIRST = ("eval ", "call ", "train ", "gradient ", "train:")
"""Programs, the simplest first: a difference in a simple program explains those in larger ones."""


def failed_findings(case: CaseResult, candidate: str) -> list[tuple[CheckResult, Finding]]:
    """Return the refuted and failed findings of a candidate by check, then simple programs and large ratios first."""
    found = [
        (check, finding)
        for check in case.checks
        if check.candidate == candidate
        for finding in check.findings
        if finding.grade in FAILED_GRADES
    ]
    checks = list(dict.fromkeys(check.check for check in case.checks))
    return sorted(
        found,
        key=lambda pair: (
            follows_training(pair[0]),
            checks.index(pair[0].check),
            _program_rank(pair[1].place),
            -severity(pair[1]),
        ),
    )


def _program_rank(place: str) -> int:
    return next(
        (index for index, word in enumerate(SIMPLE_PROGRAMS_FIRST) if place.startswith(word)),
        len(SIMPLE_PROGRAMS_FIRST),
    )


def describe_side(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    """Describe which port is likely wrong: by majority of the ports, and by each port's distance to its float64 run."""
    return " ".join(filter(None, (_describe_vote(case, check, finding), _describe_rounding(case, check, finding))))


def _describe_vote(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    mine, reference = check.candidate, case.reference
    others = [one for one in case.checks if one.check == check.check and one.candidate != mine]
    agree, same_value = [], []
    for other in others:
        theirs = [item for item in other.findings if item.place == finding.place]
        if theirs and all(item.grade not in FAILED_GRADES for item in theirs):
            agree.append(other.candidate)
        elif finding.candidate and any(item.candidate == finding.candidate for item in theirs):
            same_value.append(other.candidate)
    if agree:
        return f"{join_words((reference, *agree))} agree here and only {mine} differs: look at {mine}."
    if same_value:
        same = join_words((mine, *same_value))
        return f"{same} give the same value here and only {reference} differs: look at {reference}."
    if others:
        return f"No other candidate agrees with either port here; {reference} is the reference."
    return f"{reference} is the reference; there is no third port to compare both with."


def _describe_rounding(case: CaseResult, check: CheckResult, finding: Finding) -> str:
    rounded = finding.spread.rounded if finding.spread else ()
    if len(rounded) != 2:
        return ""
    away = (
        f"{case.reference} is {_ulps(rounded[0])} away from its own float64 run, {check.candidate} {_ulps(rounded[1])}"
    )
    if finding.precision == "float64":
        return f"{away}: the formulas differ, not only the rounding."
    return f"{away}: the same formula with different rounding."


def _ulps(number: float) -> str:
    return f"{number:.2g} ulp"


def describe_first_lost_value(case: CaseResult, candidate: str) -> str:
    """Describe from which intermediate value on the candidate differs; empty where there is none."""
    walks = [check.intermediates for check in case.checks if check.candidate == candidate and check.intermediates]
    for points in walks[:1]:
        at = next((index for index, point in enumerate(points) if point.lost), None)
        if at is not None:
            line = f" ({location.short})" if (location := points[at].location) else ""
            before = (
                f"the first {at} of {len(points)} intermediate values are equal"
                if at
                else f"none of {len(points)} intermediate values is equal"
            )
            return f"{before}; they differ from {points[at].name}{line} on"
    return ""


def possible_causes(case: CaseResult, candidate: str) -> tuple[str, ...]:
    """Return causes that were not tried, the strongest first, each with the places that show it.

    Where the values show the place, what the first different equations look like says nothing more.
    """
    by_value = bool(find_case_divergences(case, candidate))
    hints: dict[str, list[str]] = {}
    for check, finding in failed_findings(case, candidate):
        shown = replace(finding, first_differences=()) if by_value else finding
        sentence, about = _possible_cause(case, check, shown)
        if sentence:
            hints.setdefault(sentence, []).append(about)
    return tuple(sentence.format(join_words(_shorten_places(about))) for sentence, about in hints.items())[:MAX_CAUSES]


def tried_causes(case: CaseResult, candidate: str) -> tuple[str, ...]:
    """Return the causes that were tried and explain a difference, the best first."""
    return describe_tried_causes(find_case_divergences(case, candidate))[:MAX_CAUSES]


MAX_CAUSES, MAX_PLACES_PER_CAUSE = 3, 4
"""Most causes listed for one candidate, and most places named with one cause."""


def _shorten_places(about: list[str]) -> tuple[str, ...]:
    once = tuple(dict.fromkeys(about))
    return (
        once
        if len(once) <= MAX_PLACES_PER_CAUSE
        else (*once[: MAX_PLACES_PER_CAUSE - 1], f"{len(once) - MAX_PLACES_PER_CAUSE + 1} more")
    )


def _possible_cause(case: CaseResult, check: CheckResult, finding: Finding) -> tuple[str, str]:
    """Return a sentence with `{}` for the place, and the place; places with the same cause share the sentence."""
    place, who = finding.place, check.candidate
    if check.check == "structure" or finding.grade == "error" or finding.error is None:
        return _escape_braces(f"{place}: {finding.note}" if finding.note else place), place
    relation = finding.spread.relation if finding.spread else ""
    if relation == "all zero" and finding.output is not None and finding.output.kind == "gradient":
        sentence = f"no gradient reaches {{}} in {who} (0 everywhere): a `stop_gradient` follows it, "
        return sentence + "or it is not among the differentiated parameters", finding.leaf or finding.output.path
    if relation == "unchanged by every step":
        sentence = f"{who}'s training never changes {{}}: the update is dropped, or the old value is returned"
        return sentence, finding.output.text if finding.output else place
    if relation:
        return f"{who} gives {_escape_braces(relation)} at {{}}", place
    return _escape_braces(cause_from_sites(difference_sites(case, finding, who))), place


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def cause_from_sites(pair: tuple[DifferenceSite, ...]) -> str:
    """Describe how the first different equations of both ports differ; empty where that alone shows no cause."""
    if len(pair) != 2:
        return ""
    left, right = (site.equation for site in pair)
    at = _site_suffix(pair[1])
    if left.primitive != right.primitive:
        ours, theirs = _equation_words(left), _equation_words(right)
        return f"different operations: {ours} in {left.port}, {theirs} in {right.port}{at}"
    if left.operands != right.operands and left.operands and right.operands:
        ours, theirs = (
            join_words(tuple(item for item in one.operands if item not in other.operands))
            for one, other in ((left, right), (right, left))
        )
        return (
            f"different leaves at the same place: {left.primitive} takes {ours} in {left.port}, {theirs} in "
            f"{right.port}: two leaves are swapped in the code or in the layer table{at}"
        )
    if left.constants != right.constants and left.constants and right.constants:
        ours, theirs = (join_words(one.constants) for one in (left, right))
        return f"different constants in {left.primitive}: {ours} in {left.port}, {theirs} in {right.port}{at}"
    return ""


def _site_suffix(site: DifferenceSite) -> str:
    """Return the layer and the source line, as the end of a sentence."""
    layer = f"layer {site.layer}" if site.layer else ""
    line = site.equation.user_line.short if site.equation.user_line else ""
    code = f" `{site.code}`" if site.code else ""
    text = ", ".join(filter(None, (layer, f"{line}{code}".strip())))
    return f"; {text}" if text else ""


def _equation_words(equation: FirstDifference) -> str:
    return f"{equation.primitive} of {join_words(equation.inputs)}" if equation.inputs else equation.primitive


def join_words(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"
