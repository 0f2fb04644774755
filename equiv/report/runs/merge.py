"""Merge several runs into one report: shards, platforms and versions, each labelled by what differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equiv.core.environment import library_distributions
from equiv.core.grades import Verdict
from equiv.core.results import CaseResult, RunResult

VERDICTS_WORST_FIRST: tuple[Verdict, ...] = ("error", "different", "inconclusive", "same")
"""Worst first."""


@dataclass(frozen=True)
class MergedCase:
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
        """Index of its worst verdict in `VERDICTS_WORST_FIRST`; a case that could not be used at all is an error."""
        verdicts = [VERDICTS_WORST_FIRST.index(verdict) for verdict in self.case.verdicts.values()]
        return 0 if self.case.problem else min(verdicts, default=VERDICTS_WORST_FIRST.index("inconclusive"))


@dataclass(frozen=True)
class MergedRuns:
    """Several runs in one report.

    Attributes:
        runs: in the order given.
        labels: one per run: its platform, and what distinguishes it from other runs on that platform.
        entries: every case of every run, in order.
    """

    runs: tuple[RunResult, ...]
    labels: tuple[str, ...]
    entries: tuple[MergedCase, ...]

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        """Every case of every run."""
        return tuple(entry.case for entry in self.entries)

    @property
    def problems(self) -> tuple[str, ...]:
        """What kept a case or a whole run from being compared."""
        cases = [f"{entry.case.name}: {entry.case.problem}" for entry in self.entries if entry.case.problem]
        return (*cases, *(problem for run in self.runs for problem in run.problems))


def merge_runs(results: Sequence[RunResult]) -> MergedRuns:
    """Merge runs; shards of one environment share its label, repeated runs of the same cases get numbered labels."""
    labels = [_run_label(run, results) for run in results]
    taken: dict[str, set[str]] = {}
    for index, run in enumerate(results):
        names, label, count = {case.name for case in run.cases}, labels[index], 1
        while names & taken.get(labels[index], set()):
            count += 1
            labels[index] = f"{label} run {count}"
        taken.setdefault(labels[index], set()).update(names)
    entries = [MergedCase(label, run, case) for label, run in zip(labels, results, strict=True) for case in run.cases]
    return MergedRuns(tuple(results), tuple(labels), tuple(entries))


def _run_label(run: RunResult, results: Sequence[RunResult]) -> str:
    """Return the platform, and the settings of `_label_settings` that differ between the runs on that platform."""
    platform = platform_of(run)
    environments = [other.environment for other in results if platform_of(other) == platform]
    distinguishing = [
        f"{name} {run.environment.get(name, '')}".strip()
        for name in _label_settings(run.environment)
        if name in run.environment and len({other.get(name) for other in environments}) > 1
    ]
    return " ".join([platform, *distinguishing])


def _label_settings(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The settings that may distinguish two runs on one platform in a label."""
    libraries = library_distributions(environment)
    return ("device", "python", "jax", *libraries, "optax", "jax_enable_x64", "jax_default_matmul_precision")


def platform_of(run: RunResult) -> str:
    """`cpu`, `gpu`, `tpu`."""
    return run.environment.get("platform", "") or "unknown platform"


@dataclass(frozen=True)
class EnvironmentSetting:
    """One line of the environment: its value in each run."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the value differs between runs."""
        return len(set(self.values)) > 1


def environment_table(merged: MergedRuns) -> tuple[tuple[str, ...], tuple[EnvironmentSetting, ...]]:
    """Return the environments' labels and settings, differing settings first; shards of one share a column."""
    columns: dict[str, dict[str, str]] = {}
    for label, run in zip(merged.labels, merged.runs, strict=True):
        columns.setdefault(label, run.environment)
    names = sorted({name for known in columns.values() for name in known})
    settings = [EnvironmentSetting(name, tuple(known.get(name, "") for known in columns.values())) for name in names]
    return tuple(columns), tuple(sorted(settings, key=lambda setting: not setting.differs))
