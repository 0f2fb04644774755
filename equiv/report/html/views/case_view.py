"""A case as the page shows it: everything that its template needs, worked out before."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from equiv.core.headline import reason, verdict_words
from equiv.core.selfcheck_results import OUTCOMES, FaultMatrix, Kill
from equiv.core.selfcheck_results import SIGNS as OUTCOME_SIGNS
from equiv.report.cells import VERDICT_SIGNS
from equiv.report.findings.likely_causes import causes, refused, side
from equiv.report.html.anchors import anchor
from equiv.report.html.plots.case_plots import plots
from equiv.report.html.plots.charts import Plot
from equiv.report.html.plots.line_plots import walk
from equiv.report.html.views.builders import Column, builders
from equiv.report.html.views.evidence import Rewriting, Unproved, formulas, rewritings, unproved
from equiv.report.html.views.overview import VERDICT_STATES
from equiv.report.html.views.tables import Divergence, LeafRow, PlaceRow, divergences, leaf_rows, place_rows
from equiv.report.html.views.timing_tables import CostRow, PartRow, ProgramRow, cost_rows, part_rows, program_rows
from equiv.report.runs.merge import Entry


@dataclass(frozen=True)
class Candidate:
    """One candidate's part of a case.

    Attributes:
        name: its backend.
        anchor: what a link to it points at.
        state: `good`, `warn` or `bad`.
        verdict: sign and words.
        reason: why it is not known to be the same; empty where it is, or where divergences say it.
        side: which port is off.
        causes: what it is likely to be.
        divergences: where the programs part, and what shows it, the most telling first.
    """

    name: str
    anchor: str
    state: str
    verdict: str
    reason: str
    side: str
    causes: tuple[str, ...]
    divergences: tuple[Divergence, ...]


@dataclass(frozen=True)
class FaultLine:
    """One kind of planted fault: what became of it in each candidate, and which checks notice it."""

    fault: str
    cells: tuple[str, ...]
    checks: str


@dataclass(frozen=True)
class CaseView:
    """One case of one run; see `case.html.j2` for what each part becomes."""

    entry: Entry
    anchor: str
    state: str
    verdict: str
    candidates: tuple[Candidate, ...]
    columns: tuple[Column, ...]
    leaves: tuple[LeafRow, ...]
    places: tuple[PlaceRow, ...]
    unproved: tuple[Unproved, ...]
    formulas: tuple[str, ...]
    rewritings: tuple[Rewriting, ...]
    probes: str
    blind: tuple[str, ...]
    faults: tuple[FaultLine, ...]
    missed: tuple[Kill, ...]
    fault_words: str
    costs: tuple[CostRow, ...]
    programs: tuple[ProgramRow, ...]
    parts: tuple[PartRow, ...]
    load: str
    withheld: tuple[tuple[str, str], ...]
    way: Plot | None
    plots: tuple[Plot, ...]
    commands: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a part of it is called for those who cannot see where it stands."""
        return f"{self.entry.case.name} on {self.entry.label}"

    @property
    def backends(self) -> tuple[str, ...]:
        """The reference first."""
        return (self.entry.case.reference, *self.entry.case.candidates)


def view(entry: Entry) -> CaseView:
    """A case worked out."""
    case, costs = entry.case, entry.case.costs
    made = [_candidate(entry, name) for name in case.candidates]
    candidates = sorted(made, key=lambda one: ("bad", "warn", "good").index(one.state))
    state = "bad" if case.problem else next((s for s in ("bad", "warn") if s in {c.state for c in candidates}), "good")
    probes, blind = _probes(entry)
    return CaseView(
        entry=entry,
        anchor=anchor(entry),
        state=state,
        verdict=f"{VERDICT_SIGNS['error']} not usable" if case.problem else _verdict(candidates),
        candidates=tuple(candidates),
        columns=builders(case),
        leaves=leaf_rows(case),
        places=place_rows(case),
        unproved=unproved(case),
        formulas=formulas(case),
        rewritings=rewritings(case, entry.run.rewrites),
        probes=probes,
        blind=blind,
        faults=tuple(_fault_lines(case.faults, case.candidates)) if case.faults else (),
        missed=case.faults.missed if case.faults else (),
        fault_words=_fault_words(case.faults),
        costs=cost_rows(costs) if costs else (),
        programs=program_rows(costs, case.reference) if costs else (),
        parts=part_rows(costs) if costs else (),
        load=" to ".join(f"{one:.1f}" for one in costs.load) if costs else "",
        withheld=tuple(sorted(costs.withheld.items())) if costs else (),
        way=walk(case),
        plots=plots(case),
        commands=tuple(_commands(entry)),
    )


def _verdict(candidates: list[Candidate]) -> str:
    """One verdict where all have the same; else each with its candidate."""
    if len({one.verdict for one in candidates}) <= 1:
        return candidates[0].verdict if candidates else ""
    return ", ".join(f"{one.verdict} ({one.name})" for one in candidates)


def _candidate(entry: Entry, name: str) -> Candidate:
    case = entry.case
    verdict, found = case.verdicts[name], divergences(case, name)
    first = next(iter(refused(case, name)), None)
    return Candidate(
        name=name,
        anchor=anchor(entry, name),
        state=VERDICT_STATES[verdict],
        verdict=f"{VERDICT_SIGNS[verdict]} {verdict_words(case, name)}",
        reason="" if verdict == "same" or found else reason(case, name),
        side=side(case, *first) if first else "",
        causes=causes(case, name),
        divergences=found,
    )


def _probes(entry: Entry) -> tuple[str, tuple[str, ...]]:
    """How much of what was tried the probes noticed, and what they do not tell."""
    tried: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for finding in entry.case.probes:
        kind = finding.place.partition(" ")[0]
        tried[kind] += 1
        noticed[kind] += finding.grade == "exact"
    words = {
        "moving": "moved leaves",
        "swapping": "swaps of alike leaves",
        "tampering": "proofs broken by a changed equation",
    }
    told = [f"{noticed[kind]} of {tried[kind]} {words.get(kind, kind)}" for kind in tried]
    blind = tuple(f"{one.place}: {one.note}" for one in entry.case.probes if one.grade == "unidentifiable")
    return ", ".join(told), blind


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


def _fault_words(faults: FaultMatrix | None) -> str:
    if faults is None:
        return ""
    if faults.problem:
        return faults.problem
    found: Counter[str] = Counter()
    for row in faults.rows:
        found.update(row.outcomes)
    return ", ".join(f"{OUTCOME_SIGNS[outcome]} {found[outcome]} {outcome}" for outcome in OUTCOMES)


def _commands(entry: Entry) -> Iterator[str]:
    """What runs the case again; the file as it was given."""
    case = entry.case
    path = shlex.quote(case.path) if case.path else f"-k {shlex.quote(case.name)}"
    yield f"equiv run {path} --explain-budget"
    if case.faults is None:
        yield f"equiv run {path} --selfcheck"
    if case.costs is None:
        yield f"equiv bench {path}"
