"""What `equiv locate` and `equiv minimise` do, from Python: where a case differs, and a file that shows it alone."""

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from equiv.backends.batches import resolve_batch
from equiv.comparison.explain.reproduction.repro_file import write_script
from equiv.comparison.located import ReproducedDifference, locate_case, reproduce_case
from equiv.comparison.state import ReportStage
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase, check_fields
from equiv.core.files import write_file
from equiv.core.grades import Verdict
from equiv.core.located import LocatedCase
from equiv.core.releases import check_releases
from equiv.errors import EquivError
from equiv.frontends.arguments import say_nothing
from equiv.frontends.functions import infer_layers, load_inferred, load_one_case
from equiv.report.findings.divergences import describe_place, describe_tried_causes

SCRIPT, ARCHIVE = "repro.py", "repro.npz"


def load_case_file(path: Path) -> LoadedCase:
    """Load the case of a file.

    Raises:
        EquivError: there is not exactly one, or it cannot be used.
    """
    check_releases()
    return load_one_case(path)


def load_models(left: str, right: str, case: Case, progress: ReportStage = say_nothing) -> LoadedCase:
    """Infer the layer table of two models, as `equiv check` does.

    Args:
        left: the reference's builder.
        right: the candidate's.
        case: all but models and layers.
        progress: called with a text for every stage.

    Raises:
        EquivError: an argument cannot be used, or leaves have no counterpart.
    """
    check_releases()
    check_fields("locate:", case)
    progress("reading both ports")
    case = resolve_batch(case)
    found = infer_layers(left, right, batch=case.batch, methods=case.methods)
    if not found.covered:
        raise EquivError(
            f"{left} and {right}: not every leaf has a counterpart, so that nothing can be run.",
            fix="Run equiv check, which names these leaves.",
        )
    return load_inferred(found, LoadedCase("inferred", found.draft.lesson, case))


def locate(loaded: LoadedCase, progress: ReportStage = say_nothing) -> LocatedCase:
    """Find every divergence of every refuted program of a case.

    Raises:
        EquivError: the case cannot be used.
    """
    return locate_case(loaded, progress)


def minimise(
    loaded: LoadedCase, folder: Path, candidate: str = "", progress: ReportStage = say_nothing
) -> ReproducedDifference | Mapping[str, Verdict]:
    """Write the smallest reproduction of where a case differs; else return the verdict of every candidate.

    Args:
        loaded: the case.
        folder: where `repro.py` and `repro.npz` are written.
        candidate: the one to look at; empty: the first that differs.
        progress: called with a text for every stage.

    Raises:
        EquivError: the case cannot be used, what differs cannot be written as code, or a file cannot be written; then
            there is none.
    """
    found = reproduce_case(loaded, candidate, progress)
    if not isinstance(found, ReproducedDifference):
        return found
    text = write_script(found.made, _title(loaded, found), _notes(found), ARCHIVE)
    fix = "Give another folder with --out."
    if found.made.functions.arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, **found.made.functions.arrays)
        write_file(folder / ARCHIVE, packed.getvalue(), fix)
    try:
        write_file(folder / SCRIPT, text.encode(), fix)
    except EquivError:
        with suppress(OSError):
            (folder / ARCHIVE).unlink(missing_ok=True)
        raise
    return found


def _title(loaded: LoadedCase, found: ReproducedDifference) -> str:
    return f"Where {found.candidate} differs from {found.reference} in {loaded.name}, {found.located.program}."


def _notes(found: ReproducedDifference) -> list[str]:
    divergences = found.located.divergences[:1]
    notes = [f"{text[:1].upper()}{text[1:]}." for text in map(describe_place, divergences)]
    return [*notes, *(f"Tried: {text}." for text in describe_tried_causes(divergences)[:1]), *([""] if notes else [])]
