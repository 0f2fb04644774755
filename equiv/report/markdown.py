"""Runs as Markdown, for a pull request or a wiki. A pure function of the results: same input, same text."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS, cell, values
from equiv.results import CHECKS, CaseResult, RunResult
from equiv.summary import verdict_words, worst_finding


def markdown(results: Sequence[RunResult]) -> str:
    """One document for one or more runs."""
    return "\n\n".join(part for result in results for part in _run(result)) + "\n"


def _run(result: RunResult) -> Iterable[str]:
    yield f"# {VERDICT_SIGNS[result.verdict]} {_plain(result.headline)}"
    rows = [
        [case.name, f"{candidate} / {case.reference}"]
        + [cell(case, candidate, check)[0] for check in CHECKS]
        + [f"{VERDICT_SIGNS[case.verdicts[candidate]]} {verdict_words(case, candidate)}"]
        for case in result.cases
        for candidate in case.candidates
    ]
    if rows:
        yield _table(["case", "candidate / reference", *CHECKS, "verdict"], rows)
    if problems := [f"- **{case.name}**: {_plain(case.problem)}" for case in result.cases if case.problem]:
        yield "\n".join(["## Not compared", "", *problems])
    if worst := worst_finding(result.cases, ("refuted", "error")):
        case, check, finding = worst
        lines = [f"- {_plain(line)}" for line in values(finding, case.reference, check.candidate)]
        yield "\n".join(
            [f"## First finding: {case.name}-{check.candidate}, {check.check}, `{finding.place}`", "", *lines]
        )
    if errata := [_erratum(case, index) for case in result.cases for index in range(len(case.deviations))]:
        yield "## Errata of the guides"
        yield _table(["case", "backend", "the guide prints", "what happens", "what works", "versions"], errata)
    yield "## Layers"
    for case in result.cases:
        if case.leaves:
            yield _layers(case)
    yield "## Environment"
    yield _table(["", ""], sorted(result.environment.items()))


def _erratum(case: CaseResult, index: int) -> list[str]:
    row = case.deviations[index]
    return [case.name, row.backend, row.prints, row.happens, row.works, row.versions]


def _layers(case: CaseResult) -> str:
    backends = (case.reference, *case.candidates)
    rows = [
        [leaf.leaf, f"{leaf.dtype}{list(leaf.shape)}", *(leaf.places.get(backend, NOT_ASKED) for backend in backends)]
        for leaf in case.leaves
    ]
    return f"### {case.name}: {_plain(case.lesson)}\n\n" + _table(["leaf", "shape", *backends], rows)


def _table(headers: list[str], rows: Iterable[Sequence[str]]) -> str:
    return tabulate([[_plain(text) for text in row] for row in rows], headers, tablefmt="github", disable_numparse=True)


def _plain(text: str) -> str:
    """One line, in which nothing is taken for a table bar or for HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
