"""What becomes of an inferred layer table: a case, or the checks of a candidate where it lacks leaves."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from equiv import case as public
from equiv.core.case import Case
from equiv.core.checks import CHECK_NAMES, INVARIANCE
from equiv.core.grades import Grade
from equiv.core.leaves import NativeKey
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
from equiv.infer.matching.by_name import name_words
from equiv.infer.matching.proposal import UnpairedLeaf
from equiv.infer.session import InferredLayers
from equiv.infer.table.case_writer import CaseDraft


def draft_case(draft: CaseDraft, given: Case) -> Case:
    """The case that `equiv.infer.table.case_writer.case_text` writes, in memory.

    Args:
        draft: its models, layer table and known differences.
        given: everything else.
    """
    known = [one for name, path, decay in draft.known_differences for one in getattr(public, name)(path, decay=decay)]
    return replace(
        given,
        guide="my own port",
        batch=draft.batch,
        models={name: located.builder for name, located in zip(draft.names, draft.builders, strict=True)},
        layers=tuple(row.layer for row in draft.rows),
        known_differences=(*given.known_differences, *known),
    )


def check_without_run(inferred: InferredLayers) -> tuple[CheckResult, ...]:
    """The checks of the candidate where no case can be run because the layer table lacks leaves.

    Leaves without a pair make the ports different only where they cannot be each other's.
    """
    names = tuple(port.name for port in inferred.proposal.ports)
    if _sizes_differ(inferred):
        found = tuple(_size_findings(inferred))
    else:
        problems = (Finding(names[1], "unidentifiable", note=problem) for problem in inferred.problems)
        unpaired = (_unpaired_finding(inferred, one, "unidentifiable", one.reason) for one in inferred.unpaired)
        found = (*problems, *unpaired)
    structure, *later = CHECK_NAMES
    why = f"{structure}: {found[0].place}: {found[0].note}"
    return (
        CheckResult(structure, names[1], check_grade(found), f"{len(found)} leaves not mapped", found),
        *(CheckResult(name, names[1], "blocked", why) for name in later if name != INVARIANCE),
    )


def _sizes_differ(inferred: InferredLayers) -> bool:
    """Whether one port has more elements without a pair than all those of the other could be."""
    sides = [[one for one in inferred.unpaired if one.side == side] for side in (0, 1)]
    every = [sum(_element_count(inferred, one) for one in some) for some in sides]
    live = [sum(_element_count(inferred, one) for one in some if not one.dead) for some in sides]
    # What is left of a leaf that is mapped in part may be a whole leaf of the other port.
    room = [count + _rest_of_parts(inferred, side) for side, count in enumerate(every)]
    return live[0] > room[1] or live[1] > room[0]


def _rest_of_parts(inferred: InferredLayers, side: int) -> int:
    """How many elements of the leaves with a pair are in no pair."""
    pairs, leaves = inferred.proposal.pairs, inferred.proposal.ports[side].leaves
    held = Counter[NativeKey]()
    for pair in pairs:
        held[(pair.left, pair.right)[side]] += math.prod(stop - start for start, stop in pair.bounds[side])
    return sum(max(math.prod(leaves[key].shape) - count, 0) for key, count in held.items())


def _element_count(inferred: InferredLayers, one: UnpairedLeaf) -> int:
    return math.prod(inferred.proposal.ports[one.side].leaves[one.key].shape)


def _size_findings(inferred: InferredLayers) -> Iterator[Finding]:
    """Yield the unpaired leaves, those of both ports with the most similar names side by side."""
    sides = [[one for one in inferred.unpaired if one.side == side and not one.dead] for side in (0, 1)]
    ports = inferred.proposal.ports
    sizes = [{_element_count(inferred, one) for one in inferred.unpaired if one.side == side} for side in (0, 1)]
    for one in [one for some in sides for one in some if _element_count(inferred, one) in sizes[1 - one.side]]:
        # These may be each other's, whatever the rest is.
        sides[one.side].remove(one)
        yield _unpaired_finding(inferred, one, "unidentifiable", one.reason)
    left = list(sides[1])
    for one in sides[0]:
        rank = len(ports[0].leaves[one.key].shape)
        near = [two for two in left if len(ports[1].leaves[two.key].shape) == rank]
        words = name_words(one.key)
        two = max(near, key=lambda other: len(words & name_words(other.key)), default=None)
        if two is None or not words & name_words(two.key):
            yield _unpaired_finding(inferred, one, "refuted", f"{ports[1].name} has no leaf of this size")
            continue
        left.remove(two)
        note = f"the sizes differ: closest in {ports[1].name} is {two.key}"
        place = f"{ports[0].name} {one.key}"
        yield Finding(place, "refuted", reference=_spec(inferred, one), candidate=_spec(inferred, two), note=note)
    for two in left:
        yield _unpaired_finding(inferred, two, "refuted", f"{ports[0].name} has no leaf of this size")


def _spec(inferred: InferredLayers, one: UnpairedLeaf) -> str:
    struct = inferred.proposal.ports[one.side].leaves[one.key]
    return f"{struct.dtype}{list(struct.shape)}"


def _unpaired_finding(inferred: InferredLayers, one: UnpairedLeaf, grade: Grade, note: str) -> Finding:
    sides = (_spec(inferred, one), "none")[:: -1 if one.side else 1]
    place = f"{inferred.proposal.ports[one.side].name} {one.key}"
    return Finding(place, grade, reference=sides[0], candidate=sides[1], note=note)
