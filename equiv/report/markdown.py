"""Runs as Markdown, for a pull request or a wiki. A pure function of the results: same input, same text."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from equiv.core.headline import place_words, reason, verdict_words, worst_finding
from equiv.core.results import CHECKS, CaseResult, LeafResult, RunResult
from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS, cell, values
from equiv.report.layer_catalogue import HEADERS, catalogue


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
    problems = [f"{case.name}: {case.problem}" for case in result.cases if case.problem]
    if problems := [*problems, *result.problems]:
        yield "\n".join(["## Not compared", "", *(f"- {_plain(problem)}" for problem in problems)])
    unlike = [(case, who) for case in result.cases for who, verdict in case.verdicts.items() if verdict != "same"]
    if unlike:
        yield "\n".join(["## Not the same", "", *(f"- {_plain(reason(case, who))}" for case, who in unlike)])
    if worst := worst_finding(result.cases, ("error",)) or worst_finding(result.cases, ("refuted",)):
        case, check, finding = worst
        lines = [f"- {_plain(line)}" for line in values(finding, case.reference, check.candidate)]
        yield "\n".join([f"## First finding: {_plain(place_words(case, check, finding))}", "", *lines])
    if errata := [_erratum(case, index) for case in result.cases for index in range(len(case.deviations))]:
        yield "## Errata of the guides"
        yield _table(["case", "backend", "the guide prints", "what happens", "what works", "versions"], errata)
    if layers := catalogue(result.cases):
        yield "## Layer catalogue"
        yield _table(HEADERS, layers)
    if mapped := [case for case in result.cases if case.leaves]:
        yield "## Layers"
        yield from map(_layers, mapped)
    yield "## Environment"
    yield _table(["", ""], sorted(result.environment.items()))


def _erratum(case: CaseResult, index: int) -> list[str]:
    row = case.deviations[index]
    return [case.name, row.backend, row.prints, row.happens, row.works, row.versions]


def _layers(case: CaseResult) -> str:
    backends = (case.reference, *case.candidates)
    rows = [
        [leaf.leaf, f"{leaf.dtype}{list(leaf.shape)}", *(_place(leaf, backend) for backend in backends)]
        for leaf in case.leaves
    ]
    return f"### {_plain(f'{case.name}: {case.lesson}')}\n\n" + _table(["leaf", "shape", *backends], rows)


def _place(leaf: LeafResult, backend: str) -> str:
    """Where a library keeps a leaf, and how it lies there where that is not the canonical way."""
    if backend not in leaf.places:
        return NOT_ASKED
    return ": ".join(filter(None, (leaf.places[backend], leaf.layouts.get(backend, ""))))


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    texts = [[_plain(text) for text in row] for row in rows]
    return tabulate(texts, list(map(_plain, headers)), tablefmt="github", disable_numparse=True)


SPECIAL = re.compile(r"[\\`*~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")
"""What Markdown would take for its own; an underscore only at the edge of a word, as in `__call__`."""


def _plain(text: str) -> str:
    """One line, in which nothing is taken for a table bar, HTML or emphasis; code in backticks stays code."""
    parts = re.split(r"((?<!`)`[^`]+`(?!`))", " ".join(text.split()))
    parts[::2] = [SPECIAL.sub(r"\\\g<0>", part).replace("&", "&amp;").replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")
