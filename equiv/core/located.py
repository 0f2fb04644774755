"""Where a case differs: every divergence of every refuted program, as `equiv locate` shows it."""

from dataclasses import dataclass

from equiv.core.divergence import Divergence
from equiv.core.grades import Verdict
from equiv.core.output_name import ProgramName
from equiv.core.results import Finding


@dataclass(frozen=True)
class LocatedProgram:
    """Where one program of a candidate differs.

    Attributes:
        program: which one.
        worst: its worst refuted finding.
        outputs: number of its outputs that are refuted.
        divergences: the one that accounts for most first.
        remark: why there are none, or why there may be more; empty where nothing is to be said.
    """

    program: ProgramName
    worst: Finding | None
    outputs: int
    divergences: tuple[Divergence, ...]
    remark: str = ""


@dataclass(frozen=True)
class LocatedCandidate:
    """Where one candidate differs.

    Attributes:
        name: of the port.
        verdict: of what was compared.
        reason: of what is no program, such as a leaf that it lacks; empty where there is nothing.
        remarks: of its checks.
        programs: the simplest first.
    """

    name: str
    verdict: Verdict
    reason: str
    remarks: tuple[str, ...]
    programs: tuple[LocatedProgram, ...]


@dataclass(frozen=True)
class LocatedCase:
    """Where a case differs.

    Attributes:
        name: of the case.
        reference: name of the reference.
        candidates: all of them.
    """

    name: str
    reference: str
    candidates: tuple[LocatedCandidate, ...]
