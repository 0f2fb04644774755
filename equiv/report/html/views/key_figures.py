"""The six key figures: comparisons, leaves, faults, proofs, time and platforms."""

from collections import Counter
from dataclasses import dataclass

from equiv.core.checks import COMPARING_CHECKS
from equiv.core.environment import library_distributions
from equiv.core.timings import SLOWER
from equiv.report.html.plots.timing_plots import iterate_timings, paired_ratio_text
from equiv.report.html.views.banner import PLATFORMS, count_noun, count_verdicts
from equiv.report.runs.merge import MergedRuns, platform_of


@dataclass(frozen=True)
class Tile:
    """One figure: its value, label, details, and state: `good`, `warn`, `bad` or `none`."""

    value: str
    label: str
    more: str
    state: str


def build_tiles(merged: MergedRuns) -> tuple[Tile, ...]:
    """The six key figures: comparisons, leaves, faults, proofs, time and platforms."""
    return (
        _comparison_tile(merged),
        _leaf_tile(merged),
        _fault_tile(merged),
        _proof_tile(merged),
        _time_tile(merged),
        _platform_tile(merged),
    )


def _comparison_tile(merged: MergedRuns) -> Tile:
    found = count_verdicts(merged)
    state = (
        "bad"
        if found["different"] or found["error"] or found["broken"]
        else "good"
        if found["same"] == found["all"]
        else "warn"
    )
    more = [f"{found[word]} {word}" for word in ("different", "error", "inconclusive", "not run") if found[word]]
    more += [f"{count_noun(found['broken'], 'case')} not usable"] if found["broken"] else []
    text = ", ".join(more) or "none failed or skipped"
    return Tile(f"{found['same']} / {found['all']}", "comparisons the same", text, state)


def _leaf_tile(merged: MergedRuns) -> Tile:
    mapped = sum(len(entry.case.leaves) for entry in merged.entries)
    left = sum(entry.case.unmapped_leaves for entry in merged.entries)
    return Tile(
        f"{mapped} / {mapped + left}",
        "leaves mapped",
        f"{left} not mapped",
        "bad" if left else "good" if mapped else "none",
    )


def _fault_tile(merged: MergedRuns) -> Tile:
    outcomes: Counter[str] = Counter()
    for entry in merged.entries:
        for row in entry.case.faults.rows if entry.case.faults else ():
            outcomes.update(row.outcomes)
    if not outcomes:
        return Tile("not tried", "mutants killed", "run equiv run --selfcheck", "none")
    real = outcomes.total() - outcomes["equivalent"]
    more = f"{outcomes['survived']} survived, {outcomes['unidentifiable']} unidentifiable"
    return Tile(f"{outcomes['killed']} / {real}", "mutants killed", more, "bad" if outcomes["survived"] else "good")


def _proof_tile(merged: MergedRuns) -> Tile:
    checks = [check for entry in merged.entries for check in entry.case.checks if check.check in COMPARING_CHECKS]
    grades = Counter(item.grade for check in checks for item in check.findings)
    proved = grades["proved"] + grades["proved modulo"]
    more = f"valid for every input; {grades['proved modulo']} of them use named rewrites"
    return Tile(f"{proved} / {grades.total()}", "findings proved", more, "good" if proved else "none")


def _time_tile(merged: MergedRuns) -> Tile:
    steps = [
        (entry, timing)
        for entry, timing in iterate_timings(merged.entries)
        if timing.phase == "step" and timing.program == "train step" and timing.ratio
    ]
    if not steps:
        return Tile("not timed", "step time, port / reference", "run equiv bench", "none")
    claimed = [pair for pair in steps if pair[1].claim == SLOWER]
    entry, worst = max(claimed or steps, key=lambda pair: pair[1].ratio.value if pair[1].ratio else 0)
    value, _, interval = paired_ratio_text(worst).partition(" ")
    who = f"{entry.case.name}, {worst.backend} by {worst.runner}"
    more = f"{interval}: the largest of {len(claimed)} slower, of {len(steps)} timed: {who}"
    if not claimed:
        more = f"{interval}: the largest of {len(steps)}, {who}; none slower than the control allows"
    return Tile(value, "step time, port / reference", more, "warn" if claimed else "good")


def _platform_tile(merged: MergedRuns) -> Tile:
    there = list(dict.fromkeys(map(platform_of, merged.runs)))
    absent = [name for name in PLATFORMS if name not in there]
    versions = {
        f"{name.removeprefix('dm-')} {run.environment[name]}": None
        for run in merged.runs
        for name in ("jax", *library_distributions(run.environment))
        if name in run.environment
    }
    more = "; ".join([f"{', '.join(absent)} not run"] * bool(absent) + [", ".join(versions)] * bool(versions))
    return Tile(", ".join(there) or "none", "platforms", more, "warn" if absent else "good")
