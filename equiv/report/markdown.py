"""Results as Markdown, for a pull request or a wiki. The same results always give the same text."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from equiv.core.headline import headline_finding, place_words, verdict_reason, verdict_words
from equiv.core.printable import printable
from equiv.core.results import CaseResult, LeafResult, RunResult
from equiv.core.scope import group_by_port
from equiv.report.cells import NOT_APPLICABLE, VERDICT_SIGNS, check_cell, describe_finding, shown_checks
from equiv.report.layer_catalogue import CATALOGUE_HEADERS, catalogue_rows
from equiv.report.remarks import describe_remarks


def render_markdown(results: Sequence[RunResult]) -> str:
    """Render one or more runs as one document."""
    return "\n\n".join(part for result in results for part in _run_sections(result)) + "\n"


def _run_sections(result: RunResult) -> Iterable[str]:
    yield f"# {VERDICT_SIGNS[result.verdict]} {_escape_markdown(result.headline)}"
    if result.known_miscompilations:
        yield "\n".join(f"- {VERDICT_SIGNS['error']} {_escape_markdown(one)}" for one in result.known_miscompilations)
    shown = shown_checks(result.cases)
    rows = [
        [case.name, f"{candidate} / {case.reference}"]
        + [check_cell(case, candidate, check)[0] for check in shown]
        + [f"{VERDICT_SIGNS[case.verdicts[candidate]]} {verdict_words(case, candidate)}"]
        for case in result.cases
        for candidate in case.candidates
    ]
    if rows:
        yield _markdown_table(["case", "candidate / reference", *shown, "verdict"], rows)
    if remarks := describe_remarks(result.cases):
        yield "\n".join(f"- {_escape_markdown(remark)}" for remark in remarks)
    problems = [f"{case.name}: {case.problem}" for case in result.cases if case.problem]
    if problems := [*problems, *result.problems]:
        yield "\n".join(["## Not compared", "", *(f"- {_escape_markdown(problem)}" for problem in problems)])
    not_same = [(case, who) for case in result.cases for who, verdict in case.verdicts.items() if verdict != "same"]
    if not_same:
        yield "\n".join(
            ["## Not the same", "", *(f"- {_escape_markdown(verdict_reason(case, who))}" for case, who in not_same)]
        )
    if worst := headline_finding(result.cases, ("error",)) or headline_finding(result.cases, ("refuted",)):
        case, check, finding = worst
        lines = [f"- {_escape_markdown(line)}" for line in describe_finding(finding, case.reference, check.candidate)]
        yield "\n".join([f"## First finding: {_escape_markdown(place_words(case, check, finding))}", "", *lines])
    if errata := [_erratum_row(case, index) for case in result.cases for index in range(len(case.deviations))]:
        yield "## Errata of the guides"
        yield _markdown_table(["case", "backend", "the guide prints", "what happens", "what works", "versions"], errata)
    if layers := catalogue_rows(result.cases):
        yield "## Layer catalogue"
        yield _markdown_table(CATALOGUE_HEADERS, layers)
    if scopes := list(_scope_lines(result.cases)):
        yield "\n".join(["## What the verdicts hold for", "", *(f"- {_escape_markdown(line)}" for line in scopes)])
    if mapped := [case for case in result.cases if case.leaves]:
        yield "## Layers"
        yield from map(_leaf_table, mapped)
    yield "## Environment"
    yield _markdown_table(["", ""], sorted(result.environment.items()))


def _scope_lines(cases: Sequence[CaseResult]) -> Iterable[str]:
    for case in cases:
        if case.scope is not None:
            yield f"{case.name}: {case.scope.text}"
            yield from (f"{case.name}: {note}" for note in case.scope.notes)
            yield from (f"{case.name}, exercised in part: {place}" for place in group_by_port(case.scope.unexercised))


def _erratum_row(case: CaseResult, index: int) -> list[str]:
    row = case.deviations[index]
    return [case.name, row.backend, row.prints, row.happens, row.works, row.versions]


def _leaf_table(case: CaseResult) -> str:
    backends = (case.reference, *case.candidates)
    rows = [
        [leaf.leaf, f"{leaf.dtype}{list(leaf.shape)}", *(_location_text(leaf, backend) for backend in backends)]
        for leaf in case.leaves
    ]
    return f"### {_escape_markdown(f'{case.name}: {case.lesson}')}\n\n" + _markdown_table(
        ["leaf", "shape", *backends], rows
    )


def _location_text(leaf: LeafResult, backend: str) -> str:
    """Return where a library stores a leaf, and its layout there where it is not the canonical one."""
    if backend not in leaf.places:
        return NOT_APPLICABLE
    return ": ".join(filter(None, (leaf.places[backend], leaf.layouts.get(backend, ""))))


def _markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    texts = [[_escape_markdown(text) for text in row] for row in rows]
    return tabulate(texts, list(map(_escape_markdown, headers)), tablefmt="github", disable_numparse=True)


MARKDOWN_SPECIAL = re.compile(r"[\\`*~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")
"""Characters that Markdown interprets; an underscore only at the edge of a word, as in `__call__`."""


def _escape_markdown(text: str) -> str:
    """Escape table bars, HTML and emphasis, and join lines into one; code in backticks stays code."""
    parts = re.split(r"((?<!`)`[^`]+`(?!`))", printable(" ".join(text.split())))
    parts[::2] = [
        MARKDOWN_SPECIAL.sub(r"\\\g<0>", part).replace("&", "&amp;").replace("<", "&lt;") for part in parts[::2]
    ]
    return "".join(parts).replace("|", "\\|")
