"""A batch that tells more: an axis of one element hides what runs along it, as one step hides a recurrence."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from equiv.compare.candidates import Stage, compare_candidates, start_candidates
from equiv.core.batch_spec import Entry, parse_batch
from equiv.core.case import Case
from equiv.core.grades import REFUSALS
from equiv.core.results import CheckResult, Finding
from equiv.errors import EquivError
from equiv.programs.built_case import Workshop, open_workshop

Found = tuple[list[CheckResult], tuple[Finding, ...]]
"""Checks, and whether the probes can tell."""


def strengthened(workshop: Workshop, candidates: list[str], found: Found, stage: Stage) -> Found:
    """The same on a longer batch, where that tells leaves apart that nothing told before; else what was found.

    Args:
        workshop: the case.
        candidates: those that were compared.
        found: what the case's own batch gave; a refusal there stands.
        stage: told what is being done.
    """
    checks, told = found
    if any(check.grade in REFUSALS for check in checks):
        return found
    blind = _blind(told)
    for text, case in longer(workshop.case) if blind else ():
        stage(f"trying {text}")
        try:
            other = open_workshop(case)
            if not _same_leaves(workshop, other):
                continue
            more, seen = compare_candidates(start_candidates(other, candidates, stage), stage)
        except EquivError:
            continue  # a model may be written for one shape alone; the case's own batch has been judged
        if _blind(seen) < blind:
            note = f"the case's own batch does not tell: {', '.join(sorted(blind - _blind(seen)))}"
            return more, (*seen, Finding(f"lengthening {text}", "exact", note=note))
    return found


def longer(case: Case) -> Iterator[tuple[str, Case]]:
    """Batches with one axis longer in every entry that has it, axes of one element first; shown, and the case."""
    entries = parse_batch(case.batch)
    rank = max((len(entry.spec.shape) for entry in entries.values()), default=0)
    axes = {(entry.spec.shape[axis], axis) for axis in range(rank) for entry in entries.values() if _has(entry, axis)}
    for size, axis in sorted(axes):
        batch = dict(case.batch)
        for name, entry in entries.items():
            if _has(entry, axis) and entry.spec.shape[axis] == size:
                batch[name] = _text(entry.spec.dtype, entry.spec.shape, axis, case.batch[name])
        changed = [f"{name} to {text}" for name, text in batch.items() if text != case.batch[name]]
        yield ", ".join(changed), replace(case, batch=batch)


def _has(entry: Entry, axis: int) -> bool:
    return len(entry.spec.shape) > axis


def _text(dtype: str, shape: Sequence[int], axis: int, before: str) -> str:
    """An entry with one axis twice as long and one more: no axis shares the length by accident."""
    sizes = [2 * size + 1 if index == axis else size for index, size in enumerate(shape)]
    bound = before.strip().partition("]")[2]
    return f"{dtype}[{','.join(map(str, sizes))}]{bound}"


def _blind(told: Sequence[Finding]) -> frozenset[str]:
    return frozenset(
        finding.place
        for finding in told
        if finding.grade == "unidentifiable" and finding.place.startswith(("moving ", "swapping "))
    )


def _same_leaves(one: Workshop, other: Workshop) -> bool:
    """Whether every port has the same leaves; an axis of features makes other ones."""
    return {name: [leaf.spec for leaf in built.table.leaves] for name, built in one.built.items()} == {
        name: [leaf.spec for leaf in built.table.leaves] for name, built in other.built.items()
    }
