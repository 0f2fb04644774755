"""Runs as one HTML file that needs nothing else: no network, no scripts to be read, no jax to be made."""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from equiv.core.results import CHECKS, RunResult
from equiv.core.timings import PHASES
from equiv.report.html.anchors import anchor, slug
from equiv.report.html.compressed import Packer, tight
from equiv.report.html.glossary import WORDS
from equiv.report.html.plots.timing_plots import cost_plots
from equiv.report.html.views.banner import banner
from equiv.report.html.views.case_view import CaseView, view
from equiv.report.html.views.key_figures import tiles
from equiv.report.html.views.overview import VERDICT_STATES, filters, rank, rows
from equiv.report.html.views.timing_tables import FIGURES
from equiv.report.runs import diff as past
from equiv.report.runs.merge import Merged, environment_table, merge, platform_of

HTML = Path(__file__).parent


INLINE = 24_000
"""Bytes of case details that stand in the page as they are, for readers without scripts; the rest is packed."""


CHANGE_STATES = {
    "newly failing": "bad",
    "fixed": "good",
    "changed": "warn",
    "moved": "warn",
    "appeared": "meant",
    "vanished": "warn",
}


@dataclass(frozen=True)
class Section:
    """One case on the page.

    Attributes:
        view: the case.
        body: verdict, builders and leaves as they stand in the page; empty where they are packed.
        brief: a few lines instead, for readers without scripts.
        packed: address of the packed body.
        more: address of all the rest: plots, evidence, cost.
        open: whether it is open at first.
    """

    view: CaseView
    body: Markup
    brief: Markup
    packed: str
    more: str
    open: bool


def page(results: Sequence[RunResult], since: RunResult | None = None) -> str:
    """One HTML document for one or more runs. A pure function: the same results give the same text.

    With the same vl-convert, that is: another release may draw a chart by other bytes.

    Args:
        results: shards, platforms or versions; their cases stand side by side.
        since: an earlier run that the history section compares each of them with.
    """
    merged = merge(results)
    ranked = rank(merged.entries)
    made = rows(ranked)
    packer = Packer()
    template = environment(packer)
    told = banner(merged, ranked)
    script, style = (_read(name) for name in ("page.js", "page.css"))
    labels, settings = environment_table(merged)
    return template.get_template("page.html.j2").render(
        merged=merged,
        banner=told,
        banner_state=VERDICT_STATES[told.verdict],
        tiles=tiles(merged),
        rows=made,
        filters=filters(made),
        checks=CHECKS,
        several=len(set(merged.labels)) > 1,
        cases=tuple(_sections(template, packer, tuple(map(view, ranked)))),
        packer=packer,
        cost_plots=cost_plots(merged.entries),
        errata=_errata(merged),
        environments=labels,
        settings=settings,
        histories=tuple(_histories(merged, since)),
        change_states=CHANGE_STATES,
        change_signs=past.SIGNS,
        problems=merged.problems,
        words=WORDS,
        script=Markup(script),
        style=Markup(style),
        policy=policy(script, style),
    )


def policy(script: str, style: str) -> str:
    """The content security policy: this script and this style by their hashes, and nothing else from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def environment(packer: Packer) -> Environment:
    """The templates; every value is escaped, and a name that is missing is an error.

    Args:
        packer: takes what is unpacked when it is opened.
    """
    made = Environment(
        loader=FileSystemLoader(HTML / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"slug": slug, "code": _code, "entry_anchor": anchor}
    made.globals |= {"phases": PHASES, "figures": FIGURES, "packed": lambda text: packer.add(tight(text))}
    return made


def _code(text: str) -> Markup:
    """A text in which what stands in backticks is code."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def _read(name: str) -> str:
    """A part of the page without the spaces that only its source needs."""
    lines = [line.strip() for line in (HTML / name).read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _sections(template: Environment, packer: Packer, views: Sequence[CaseView]) -> Iterator[Section]:
    """The cases, the worst first: as long as there is room a body stands as it is; the first that fails is open."""
    parts = [template.get_template(f"{name}.html.j2") for name in ("case", "brief", "more")]
    room = INLINE
    for number, one in enumerate(views):
        body, brief, more = (Markup(tight(part.render(view=one))) for part in parts)
        size = len(body.encode())
        inline = size <= room
        room -= size if inline else 0
        yield Section(
            view=one,
            body=body if inline else Markup(""),
            brief=Markup("") if inline else brief,
            packed="" if inline else packer.add(body),
            more=packer.add(more),
            open=number == 0 and one.state != "good",
        )


def _errata(merged: Merged) -> tuple[tuple[Any, Any], ...]:
    """Every deviation once, with the first case of those that have it."""
    found: dict[Any, Any] = {}
    for entry in merged.entries:
        for row in entry.case.deviations:
            found.setdefault((entry.case.name, row), entry)
    return tuple((entry, row) for (_, row), entry in found.items())


def _histories(merged: Merged, since: RunResult | None) -> Iterator[past.History]:
    """From the earlier run to each of these; and from run to run of one platform that share cases."""
    for run in merged.runs if since else ():
        assert since is not None
        yield past.history(since, run)
    ordered = sorted(merged.runs, key=lambda run: run.started)
    for index, run in enumerate(ordered):
        names = {case.name for case in run.cases}
        for later in ordered[index + 1 :]:
            if platform_of(later) == platform_of(run) and names & {case.name for case in later.cases}:
                yield past.history(run, later)
                break
