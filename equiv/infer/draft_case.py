"""What becomes of an inferred layer table: a case, or the checks of a candidate where it lacks leaves."""

from dataclasses import replace

from equiv import case as public
from equiv.core.case import Case
from equiv.core.checks import CHECK_NAMES
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import check_grade
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

    An unpaired leaf makes the ports different only if the other port has no unpaired leaf that it could correspond to.
    """
    proposal = inferred.proposal
    names = tuple(port.name for port in proposal.ports)
    live = [one for one in inferred.unpaired if not one.dead]
    sides = {one.side for one in live}
    # Unpaired leaves on both sides may be each other's, and a pair
    # that no row expresses may be equal. Then it is not known.
    alone = len(sides) == 1 and not inferred.problems and not proposal.notes
    findings = [Finding(names[1], "unidentifiable", note=problem) for problem in inferred.problems]
    for one in live if alone else inferred.unpaired:
        struct = proposal.ports[one.side].leaves[one.key]
        shape = f"{struct.dtype}{list(struct.shape)}"
        note = f"{names[1 - one.side]} has no corresponding leaf" if alone else one.reason
        findings.append(
            Finding(
                f"{names[one.side]} {one.key}",
                "refuted" if alone else "unidentifiable",
                reference="none" if one.side else shape,
                candidate=shape if one.side else "none",
                note=note,
            )
        )
    structure, *later = CHECK_NAMES
    found = tuple(findings)
    why = f"{structure}: {found[0].place}: {found[0].note}"
    return (
        CheckResult(structure, names[1], check_grade(found), f"{len(found)} leaves not mapped", found),
        *(CheckResult(name, names[1], "blocked", why) for name in later),
    )
