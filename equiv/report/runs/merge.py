"""Several runs as one: shards, platforms and versions side by side, each told apart by what differs."""

from collections.abc import Sequence
from dataclasses import dataclass

from equiv.core.grades import Verdict
from equiv.core.results import CaseResult, RunResult

SEVERITY: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")
"""Worst first."""


@dataclass(frozen=True)
class Entry:
    """One case of one run.

    Attributes:
        label: the run's label.
        run: the run.
        case: the case.
    """

    label: str
    run: RunResult
    case: CaseResult

    @property
    def worst(self) -> int:
        """Place of its worst verdict in `SEVERITY`; a case that could not be used at all is an error."""
        verdicts = [SEVERITY.index(verdict) for verdict in self.case.verdicts.values()]
        return 0 if self.case.problem else min(verdicts, default=SEVERITY.index("inconclusive"))


@dataclass(frozen=True)
class Merged:
    """Runs under one roof.

    Attributes:
        runs: in the order given.
        labels: of each run: its platform, and whatever else tells it from another run of that platform.
        entries: every case of every run, in order.
    """

    runs: tuple[RunResult, ...]
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        """Every case of every run."""
        return tuple(entry.case for entry in self.entries)

    @property
    def problems(self) -> tuple[str, ...]:
        """What kept a case or a whole run from being compared."""
        cases = [f"{entry.case.name}: {entry.case.problem}" for entry in self.entries if entry.case.problem]
        return (*cases, *(problem for run in self.runs for problem in run.problems))


def merge(results: Sequence[RunResult]) -> Merged:
    """Runs under one roof; shards of one environment share its label, runs of the same cases do not."""
    labels = [_label(run, results) for run in results]
    taken: dict[str, set[str]] = {}
    for index, run in enumerate(results):
        names, label, count = {case.name for case in run.cases}, labels[index], 1
        while names & taken.get(labels[index], set()):
            count += 1
            labels[index] = f"{label} run {count}"
        taken.setdefault(labels[index], set()).update(names)
    entries = [Entry(label, run, case) for label, run in zip(labels, results, strict=True) for case in run.cases]
    return Merged(tuple(results), tuple(labels), tuple(entries))


def _label(run: RunResult, results: Sequence[RunResult]) -> str:
    """The platform, and what differs between the runs of that platform and has a short name."""
    platform = platform_of(run)
    alike = [other.environment for other in results if platform_of(other) == platform]
    telling = [
        f"{name} {run.environment.get(name, '')}".strip()
        for name in TELLING
        if name in run.environment and len({other.get(name) for other in alike}) > 1
    ]
    return " ".join([platform, *telling])


TELLING = ("device", "python", "jax", "flax", "dm-haiku", "optax", "jax_enable_x64", "jax_default_matmul_precision")
"""What tells two runs of one platform apart in few words."""


def platform_of(run: RunResult) -> str:
    """`cpu`, `gpu`, `tpu`."""
    return run.environment.get("platform", "") or "unknown platform"


@dataclass(frozen=True)
class Setting:
    """One line of the environment: its value in each run."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs do."""
        return len(set(self.values)) > 1


def environment_table(merged: Merged) -> tuple[tuple[str, ...], tuple[Setting, ...]]:
    """The labels of the environments and their settings, those that differ first; shards of one are one column."""
    columns: dict[str, dict[str, str]] = {}
    for label, run in zip(merged.labels, merged.runs, strict=True):
        columns.setdefault(label, run.environment)
    names = sorted({name for known in columns.values() for name in known})
    settings = [Setting(name, tuple(known.get(name, "") for known in columns.values())) for name in names]
    return tuple(columns), tuple(sorted(settings, key=lambda setting: not setting.differs))
