"""A proposal put to the test: the case file that was written is loaded and run like any other."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from equiv.compare.pipeline import Asked, conclude, run_cases
from equiv.core.case_files import CaseFile
from equiv.core.grades import Verdict
from equiv.core.leaves import NativeKey
from equiv.core.results import RunResult
from equiv.infer.matching.proposal import Proposal
from equiv.infer.session import Inferred


def certify(path: Path, progress: Callable[[str], None] = lambda _: None) -> RunResult:
    """Run a case file.

    Args:
        path: the file.
        progress: told what is being done.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    found = list(run_cases([CaseFile(path.stem, path)], progress, Asked()))
    return conclude(found, started, time.perf_counter() - clock)


def without_run(inferred: Inferred) -> tuple[Verdict, str]:
    """The verdict where no case can be run, since leaves have no place in the layer table.

    A leaf without a counterpart makes the ports different only if nothing of the other port is left that it could be.
    """
    names = tuple(port.backend for port in inferred.proposal.ports)
    alive = [one for one in inferred.left if not one.dead]
    lonely = {one.side for one in alive}
    if len(lonely) == 1 and not inferred.problems and not inferred.proposal.notes:
        side = lonely.pop()
        first, more = alive[0], f" ({len(alive)} such leaves)" if len(alive) > 1 else ""
        return "different", (
            f"Not the same: {names[side]} has {_told(inferred.proposal, first.side, first.key)}, "
            f"{names[1 - side]} has nothing left for it{more}."
        )
    told = [*inferred.problems, *(f"{names[one.side]} {one.key}: {one.reason}" for one in inferred.left)]
    return "inconclusive", f"Inconclusive: {len(told)} leaves have no place in the layer table. First: {told[0]}."


def _told(proposal: Proposal, side: int, key: NativeKey) -> str:
    struct = proposal.ports[side].leaves[key]
    return f"{key} {struct.dtype}{list(struct.shape)}"
