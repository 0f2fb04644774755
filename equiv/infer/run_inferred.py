"""Check an inferred layer table: load and run the written case file like any other."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from equiv.comparison.pipeline import RunOptions, make_run_result, run_cases
from equiv.core.case_files import CaseFile
from equiv.core.grades import Verdict
from equiv.core.leaves import NativeKey
from equiv.core.results import RunResult
from equiv.infer.matching.proposal import Proposal
from equiv.infer.session import InferredLayers


def run_case_file(path: Path, progress: Callable[[str], None] = lambda _: None) -> RunResult:
    """Run a case file.

    Args:
        path: the file.
        progress: called with a line of text for every stage.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    found = list(run_cases([CaseFile(path.stem, path)], progress, RunOptions()))
    return make_run_result(found, started, time.perf_counter() - clock)


def verdict_without_run(inferred: InferredLayers) -> tuple[Verdict, str]:
    """The verdict where no case can be run because the layer table lacks leaves.

    An unpaired leaf makes the ports different only if the other port has no unpaired leaf that it could correspond to.
    """
    names = tuple(port.name for port in inferred.proposal.ports)
    live = [one for one in inferred.unpaired if not one.dead]
    sides = {one.side for one in live}
    # Unpaired leaves on both sides may be each other's, and a pair
    # that no row expresses may be equal. Then it is not known.
    if len(sides) == 1 and not inferred.problems and not inferred.proposal.notes:
        side = sides.pop()
        first, more = live[0], f" ({len(live)} such leaves)" if len(live) > 1 else ""
        return "different", (
            f"Not the same: {names[side]} has {_describe_native_leaf(inferred.proposal, first.side, first.key)}, "
            f"{names[1 - side]} has no corresponding leaf{more}."
        )
    missing = [*inferred.problems, *(f"{names[one.side]} {one.key}: {one.reason}" for one in inferred.unpaired)]
    return "inconclusive", f"Inconclusive: {len(missing)} leaves are missing from the layer table. First: {missing[0]}."


def _describe_native_leaf(proposal: Proposal, side: int, key: NativeKey) -> str:
    struct = proposal.ports[side].leaves[key]
    return f"{key} {struct.dtype}{list(struct.shape)}"
