"""A case as the page shows it: all data that its templates need."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from equiv.core.headline import verdict_reason, verdict_words
from equiv.core.results import TrialKind
from equiv.core.scope import group_by_port
from equiv.core.selfcheck_results import OUTCOME_SIGNS, OUTCOMES, FaultMatrix, MutantResult
from equiv.report.cells import VERDICT_SIGNS, count_trials, count_unrun, describe_conditions
from equiv.report.findings.possible_causes import describe_side, failed_findings, possible_causes, tried_causes
from equiv.report.html.anchors import anchor
from equiv.report.html.plots.case_plots import case_plots
from equiv.report.html.plots.charts import Plot
from equiv.report.html.plots.line_plots import network_plot
from equiv.report.html.views.builders import BuilderColumn, builder_columns
from equiv.report.html.views.evidence import RewriteUse, UnprovedGroup, known_formulas, rewrite_uses, unproved_groups
from equiv.report.html.views.overview import VERDICT_STATES
from equiv.report.html.views.tables import Divergence, FindingRow, LeafRow, divergences, finding_rows, leaf_rows
from equiv.report.html.views.timing_tables import CostRow, PartRow, ProgramRow, cost_rows, part_rows, program_rows
from equiv.report.remarks import case_remarks
from equiv.report.runs.merge import MergedCase


@dataclass(frozen=True)
class CandidateView:
    """One candidate's part of a case.

    Attributes:
        name: its backend.
        anchor: the id that links point at.
        state: `good`, `warn` or `bad`.
        verdict: sign and words.
        reason: why the verdict is not `same`; empty where it is, or where divergences show it.
        side: which port is likely wrong.
        tried: causes that were tried.
        possible: others, where none was.
        divergences: where the programs diverge and the places that show it, most informative first.
    """

    name: str
    anchor: str
    state: str
    verdict: str
    reason: str
    side: str
    tried: tuple[str, ...]
    possible: tuple[str, ...]
    divergences: tuple[Divergence, ...]


@dataclass(frozen=True)
class FaultLine:
    """One kind of planted fault: its outcomes in each candidate, and which checks notice it."""

    fault: str
    cells: tuple[str, ...]
    checks: str


@dataclass(frozen=True)
class CaseView:
    """One case of one run; `case.html.j2` and `more.html.j2` render it."""

    entry: MergedCase
    anchor: str
    state: str
    verdict: str
    candidates: tuple[CandidateView, ...]
    remarks: tuple[str, ...]
    columns: tuple[BuilderColumn, ...]
    leaves: tuple[LeafRow, ...]
    places: tuple[FindingRow, ...]
    unproved: tuple[UnprovedGroup, ...]
    formulas: tuple[str, ...]
    rewritings: tuple[RewriteUse, ...]
    probes: str
    undetected_changes: tuple[str, ...]
    scope: str
    unexercised: tuple[str, ...]
    faults: tuple[FaultLine, ...]
    missed: tuple[MutantResult, ...]
    fault_words: str
    costs: tuple[CostRow, ...]
    programs: tuple[ProgramRow, ...]
    parts: tuple[PartRow, ...]
    load: str
    withheld: tuple[tuple[str, str], ...]
    network_plot: Plot | None
    plots: tuple[Plot, ...]
    commands: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name of the case in labels for screen readers."""
        return f"{self.entry.case.name} on {self.entry.label}"

    @property
    def backends(self) -> tuple[str, ...]:
        """The reference first."""
        return (self.entry.case.reference, *self.entry.case.candidates)


def build_case_view(entry: MergedCase) -> CaseView:
    """Build the view of a case."""
    case, costs = entry.case, entry.case.costs
    made = [_candidate_view(entry, name) for name in case.candidates]
    candidates = sorted(made, key=lambda one: ("bad", "warn", "good").index(one.state))
    state = "bad" if case.problem else next((s for s in ("bad", "warn") if s in {c.state for c in candidates}), "good")
    probes, undetected = _probe_summary(entry)
    return CaseView(
        entry=entry,
        anchor=anchor(entry),
        state=state,
        verdict=f"{VERDICT_SIGNS['error']} not usable" if case.problem else _joint_verdict(candidates),
        candidates=tuple(candidates),
        remarks=case_remarks(case),
        columns=builder_columns(case),
        leaves=leaf_rows(case),
        places=finding_rows(case),
        unproved=unproved_groups(case),
        formulas=known_formulas(case),
        rewritings=rewrite_uses(case, entry.run.rewrites),
        probes=probes,
        undetected_changes=undetected,
        scope="; ".join((case.scope.text, *case.scope.notes)) if case.scope else "",
        unexercised=tuple(group_by_port(case.scope.unexercised)) if case.scope else (),
        faults=tuple(_fault_lines(case.faults, case.candidates)) if case.faults else (),
        missed=case.faults.missed if case.faults else (),
        fault_words=_fault_summary(case.faults),
        costs=cost_rows(costs) if costs else (),
        programs=program_rows(costs, case.reference) if costs else (),
        parts=part_rows(costs) if costs else (),
        load=" to ".join(f"{one:.1f}" for one in costs.load) if costs else "",
        withheld=tuple(sorted(costs.withheld.items())) if costs else (),
        network_plot=network_plot(case),
        plots=case_plots(case),
        commands=tuple(_rerun_commands(entry)),
    )


def _joint_verdict(candidates: list[CandidateView]) -> str:
    """Return one verdict where all candidates have the same; else each with its candidate."""
    if len({one.verdict for one in candidates}) <= 1:
        return candidates[0].verdict if candidates else ""
    return ", ".join(f"{one.verdict} ({one.name})" for one in candidates)


def _candidate_view(entry: MergedCase, name: str) -> CandidateView:
    case = entry.case
    verdict, found = case.verdicts[name], divergences(case, name)
    first = next(iter(failed_findings(case, name)), None)
    tried = tried_causes(case, name)
    return CandidateView(
        name=name,
        anchor=anchor(entry, name),
        state=VERDICT_STATES[verdict],
        verdict=f"{VERDICT_SIGNS[verdict]} {verdict_words(case, name)}",
        reason="" if verdict == "same" or found else verdict_reason(case, name),
        side=describe_side(case, *first) if first else "",
        tried=tried,
        possible=() if tried else possible_causes(case, name),
        divergences=found,
    )


def _probe_summary(entry: MergedCase) -> tuple[str, tuple[str, ...]]:
    """Return how many of the tried changes the probes notice, and those that they do not."""
    trials = entry.case.trials
    counted = []
    for kind, words in TRIAL_WORDS.items():
        if any(trial.kind == kind for trial in trials):
            counted.append(f"{count_trials(trials, kind)} {words}")
    undetected = tuple(f"{trial.title}: {trial.note}" for trial in trials if not trial.detected)
    said = (", ".join(counted), count_unrun(trials), *describe_conditions(trials))
    return "; ".join(filter(None, said)), undetected


TRIAL_WORDS: dict[TrialKind, str] = {
    "moved": "changed leaves",
    "swapped": "swaps of leaves of the same shape",
    "mutated proof": "proofs that fail when an equation is changed",
}
"""Kinds of trial that are counted, and what is counted."""


def _fault_lines(faults: FaultMatrix, candidates: tuple[str, ...]) -> Iterator[FaultLine]:
    for fault in dict.fromkeys(row.fault for row in faults.rows):
        mine = {row.candidate: row for row in faults.rows if row.fault == fault}
        cells = tuple(
            " ".join(
                f"{OUTCOME_SIGNS[outcome]} {mine[who].outcomes[outcome]}"
                for outcome in OUTCOMES
                if mine[who].outcomes.get(outcome)
            )
            if who in mine
            else ""
            for who in candidates
        )
        checks: Counter[str] = Counter()
        for row in mine.values():
            checks.update(row.checks)
        yield FaultLine(
            fault,
            cells,
            ", ".join(f"{check} {checks[check]}" for check in sorted(checks, key=lambda name: (-checks[name], name))),
        )


def _fault_summary(faults: FaultMatrix | None) -> str:
    if faults is None:
        return ""
    if faults.problem:
        return faults.problem
    found: Counter[str] = Counter()
    for row in faults.rows:
        found.update(row.outcomes)
    return ", ".join(f"{OUTCOME_SIGNS[outcome]} {found[outcome]} {outcome}" for outcome in OUTCOMES)


def _rerun_commands(entry: MergedCase) -> Iterator[str]:
    """Yield commands that run the case again, with its path as it was given."""
    case = entry.case
    path = shlex.quote(case.path) if case.path else f"-k {shlex.quote(case.name)}"
    yield f"equiv run {path} --explain-budget"
    if case.faults is None:
        yield f"equiv run {path} --selfcheck"
    if case.costs is None:
        yield f"equiv bench {path}"
