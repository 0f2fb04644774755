"""Results as one self-contained HTML file: no network, readable without scripts, rendered without JAX."""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from equiv.core.results import RunResult
from equiv.core.timings import PHASES
from equiv.report.cells import shown_checks
from equiv.report.html.anchors import anchor, slug
from equiv.report.html.compressed import Packer, strip_whitespace
from equiv.report.html.glossary import GLOSSARY
from equiv.report.html.plots.timing_plots import cost_plots
from equiv.report.html.views.banner import build_banner
from equiv.report.html.views.case_view import CaseView, build_case_view
from equiv.report.html.views.key_figures import build_tiles
from equiv.report.html.views.overview import VERDICT_STATES, build_filters, comparison_rows, rank_entries
from equiv.report.html.views.timing_tables import PROGRAM_FIGURES
from equiv.report.runs import diff as past
from equiv.report.runs.merge import MergedRuns, environment_table, merge_runs, platform_of

HTML_FOLDER = Path(__file__).parent

MAX_INLINE_BYTES = 24_000
"""Most bytes of case details written into the page uncompressed, for readers without scripts; the rest is packed."""

CHANGE_STATES = {
    "newly failing": "bad",
    "fixed": "good",
    "changed": "warn",
    "moved": "warn",
    "appeared": "meant",
    "vanished": "warn",
}


@dataclass(frozen=True)
class CaseSection:
    """One case on the page.

    Attributes:
        view: the case.
        body: verdict, builders and leaves, uncompressed; empty where they are packed.
        brief: a short summary shown instead, for readers without scripts.
        packed: address of the packed body.
        more: address of the packed rest: plots, evidence, cost.
        open: whether the section is open when the page loads.
    """

    view: CaseView
    body: Markup
    brief: Markup
    packed: str
    more: str
    open: bool


def render_page(results: Sequence[RunResult], since: RunResult | None = None) -> str:
    """Render one or more runs as one HTML document; the same results and the same vl-convert give the same text.

    Args:
        results: shards, platforms or versions, shown in one report.
        since: an earlier run that the history section compares each run with.
    """
    merged = merge_runs(results)
    ranked = rank_entries(merged.entries)
    checks = shown_checks(entry.case for entry in ranked)
    made = comparison_rows(ranked, checks)
    packer = Packer()
    template = template_environment(packer)
    head = build_banner(merged, ranked)
    script, style = (_read_asset(name) for name in ("page.js", "page.css"))
    labels, settings = environment_table(merged)
    return template.get_template("page.html.j2").render(
        merged=merged,
        banner=head,
        banner_state=VERDICT_STATES[head.verdict],
        tiles=build_tiles(merged),
        rows=made,
        filters=build_filters(made),
        checks=checks,
        several=len(set(merged.labels)) > 1,
        cases=tuple(_case_sections(template, packer, tuple(map(build_case_view, ranked)))),
        packer=packer,
        cost_plots=cost_plots(merged.entries),
        errata=_errata(merged),
        environments=labels,
        settings=settings,
        histories=tuple(_run_diffs(merged, since)),
        change_states=CHANGE_STATES,
        change_signs=past.CHANGE_SIGNS,
        problems=merged.problems,
        words=GLOSSARY,
        script=Markup(script),
        style=Markup(style),
        policy=security_policy(script, style),
    )


def security_policy(script: str, style: str) -> str:
    """Return the content security policy: this script and this style by their hashes, and nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def template_environment(packer: Packer) -> Environment:
    """Return the Jinja environment: every value is escaped, and an undefined name is an error.

    Args:
        packer: collects the parts that are decompressed when opened.
    """
    made = Environment(
        loader=FileSystemLoader(HTML_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"slug": slug, "code": _code_filter, "entry_anchor": anchor}
    made.globals |= {
        "phases": PHASES,
        "figures": PROGRAM_FIGURES,
        "packed": lambda text: packer.add(strip_whitespace(text)),
    }
    return made


def _code_filter(text: str) -> Markup:
    """Escape a text and turn backticks into `<code>`."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def _read_asset(name: str) -> str:
    """Return a script or style without indentation, empty lines and comments."""
    lines = [line.strip() for line in (HTML_FOLDER / name).read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _case_sections(template: Environment, packer: Packer, views: Sequence[CaseView]) -> Iterator[CaseSection]:
    """Yield the cases, worst first: uncompressed up to `MAX_INLINE_BYTES`; the first is open if it failed."""
    parts = [template.get_template(f"{name}.html.j2") for name in ("case", "brief", "more")]
    room = MAX_INLINE_BYTES
    for number, one in enumerate(views):
        body, brief, more = (Markup(strip_whitespace(part.render(view=one))) for part in parts)
        size = len(body.encode())
        inline = size <= room
        room -= size if inline else 0
        yield CaseSection(
            view=one,
            body=body if inline else Markup(""),
            brief=Markup("") if inline else brief,
            packed="" if inline else packer.add(body),
            more=packer.add(more),
            open=number == 0 and one.state != "good",
        )


def _errata(merged: MergedRuns) -> tuple[tuple[Any, Any], ...]:
    """Return every deviation once, with the first case that has it."""
    found: dict[Any, Any] = {}
    for entry in merged.entries:
        for row in entry.case.deviations:
            found.setdefault((entry.case.name, row), entry)
    return tuple((entry, row) for (_, row), entry in found.items())


def _run_diffs(merged: MergedRuns, since: RunResult | None) -> Iterator[past.RunDiff]:
    """Yield changes from the earlier run to each run, and between consecutive runs of one platform that share cases."""
    for run in merged.runs if since else ():
        assert since is not None
        yield past.diff_runs(since, run)
    ordered = sorted(merged.runs, key=lambda run: run.started)
    for index, run in enumerate(ordered):
        names = {case.name for case in run.cases}
        for later in ordered[index + 1 :]:
            if platform_of(later) == platform_of(run) and names & {case.name for case in later.cases}:
                yield past.diff_runs(run, later)
                break
