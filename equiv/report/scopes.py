"""What the verdicts of a run hold for, in a few lines: for the terminal and the banner of the page."""

from collections.abc import Iterator, Sequence

from equiv.core.results import CaseResult
from equiv.core.scope import Scope, group_by_port

MAX_UNEXERCISED = 3
"""Most places that no probe exercised that are named; the results, and the page below each case, have all."""


def _other_programs(known: Sequence[tuple[CaseResult, Scope]]) -> Iterator[str]:
    """Name the ports of many cases that are another program with other sizes."""
    for case, scope in known:
        for one in scope.other_sizes:
            if one.answer == "another program":
                yield f"{case.name}: {one.port}: {one.text}"


def describe_scopes(cases: Sequence[CaseResult]) -> Iterator[str]:
    """Say what the verdicts hold for, and what no probe exercised; of many cases, how many places there are."""
    known = [(case, case.scope) for case in cases if case.scope is not None]
    if len(known) > MAX_UNEXERCISED:
        count = sum(len(list(group_by_port(scope.unexercised))) for _, scope in known)
        some = f"; {count} places exercised in part: the page has them below each case" if count else ""
        yield f"each holds for its case's shapes, dtypes, methods, modes and steps{some}"
        for case, scope in known:
            notes = (*scope.gradient_texts, *scope.range_texts, *scope.patches)
            yield from (f"{case.name}: {note}" for note in notes)
        yield from _other_programs(known)
        return
    for case, scope in known:
        name = f"{case.name}: " if len(cases) > 1 else ""
        yield f"{name}holds for {scope.text}"
        yield from (f"{name}{note}" for note in scope.notes)
        if scope.unexercised:
            places = list(group_by_port(scope.unexercised))
            more = len(places) - MAX_UNEXERCISED
            rest = f"; and {more} more" if more > 0 else ""
            yield f"{name}exercised in part: {'; '.join(places[:MAX_UNEXERCISED])}{rest}"
