"""The remarks of checks as lines: what a check as a whole rests on or leaves out, each once for all cases."""

from collections.abc import Sequence

from equiv.core.results import CaseResult

MAX_CASES_NAMED = 3
"""Most cases that are named with a remark."""


def case_remarks(case: CaseResult) -> tuple[str, ...]:
    """The remarks of a case, the check before each."""
    return tuple(dict.fromkeys(f"{check.check}: {remark}" for check in case.checks for remark in check.remarks))


def describe_remarks(cases: Sequence[CaseResult]) -> list[str]:
    """The remarks of all cases; a case is named where there are several."""
    found: dict[str, list[str]] = {}
    for case in cases:
        for remark in case_remarks(case):
            found.setdefault(remark, []).append(case.name)
    several = len({case.name for case in cases}) > 1
    return [f"{remark} ({_name_cases(names)})" if several else remark for remark, names in found.items()]


def _name_cases(names: Sequence[str]) -> str:
    rest = len(names) - MAX_CASES_NAMED
    return ", ".join(names) if rest < 1 else f"{', '.join(names[:MAX_CASES_NAMED])} and {rest} more"
