"""The steps of a conversion: open, locate, plan, write, and, on request, run both models."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from equiv.conversion import manifest as manifests
from equiv.conversion.formats.checkpoint import Checkpoint, CheckpointError, TemplateMismatch, size_of
from equiv.conversion.formats.registry import format_for, open_checkpoint
from equiv.conversion.manifest import LeafRecord, Manifest
from equiv.conversion.plan.plan import Choices, Plan, make_plan
from equiv.conversion.source.expected_leaves import LibraryModel, build_library_model
from equiv.conversion.source.locate import TemplateMatch, match_template
from equiv.conversion.source.located_checkpoint import LocatedCheckpoint
from equiv.conversion.source.validate import key_data
from equiv.conversion.verify import check_training, verify
from equiv.conversion.write_plan import WriteProgress, check_output_path, execute_plan
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.errors import EquivError


@dataclass(frozen=True)
class ConversionRequest:
    """What to convert, and how.

    Attributes:
        checkpoint: the old checkpoint.
        loaded: the case whose layer table is used.
        target: port of the new checkpoint.
        out: path of the new checkpoint.
        origin: port of the old checkpoint; None: inferred from its leaves.
        format: format of the new checkpoint; None: by the suffix of `out`.
        choices: see `Choices`; leaves that an earlier conversion preserved are added.
        drop: parts of paths that are left out.
        allow_pickle: whether a pickle may be read.
        nonfinite: whether NaN and infinite values are accepted.
        verify: whether both models are run and compared.
    """

    checkpoint: Path
    loaded: LoadedCase
    target: str
    out: Path
    origin: str | None = None
    format: str | None = None
    choices: Choices = field(default_factory=Choices)
    drop: tuple[str, ...] = ()
    allow_pickle: bool = False
    nonfinite: bool = False
    verify: bool = False


def convert_checkpoint(
    request: ConversionRequest,
    stage: Callable[[str], None] = lambda _: None,
    begin: Callable[[Plan], WriteProgress] = lambda _: lambda _: None,
    dry: bool = False,
) -> Manifest | None:
    """Convert a checkpoint to another library.

    Args:
        request: what to convert, and how.
        stage: called with what is being done.
        begin: called with the plan before anything is written; returns the callback for the progress.
        dry: stop at the plan.

    Returns:
        The manifest; None: a dry run.

    Raises:
        CheckpointError: the checkpoint cannot be converted; nothing has been written.
        EquivError: the case cannot be used.
    """
    case, name = request.loaded.case, request.loaded.name
    for asked in (request.target, request.origin):
        if asked is not None and asked not in case.models:
            raise EquivError(
                f"{name}: the case has no {asked}; it has {', '.join(case.models)}.", fix="Give one of them."
            )
    format = format_for(request.out, request.format)
    if not dry:
        check_output_path(request.out, request.checkpoint)
    stage("opening the checkpoint")
    checkpoint = open_checkpoint(request.checkpoint, request.allow_pickle)
    try:
        stage("building the models")
        models = {
            backend: build_library_model(case, backend)
            for backend in ([request.origin] if request.origin else case.models)
        }
        former = manifests.read_manifest(request.checkpoint)
        located = _identify_library(checkpoint, models, request, former)
        source = LocatedCheckpoint(checkpoint, located, request.nonfinite)
        target = models.get(request.target) or build_library_model(case, request.target)
        kept = former.kept if former else ()
        plan = make_plan(source, target, replace(request.choices, kept=(*request.choices.kept, *kept)))
        if dry:
            begin(plan)
            return None
        stage("trying the optimizer")
        tried = check_training(case, plan)
        plan = replace(plan, notes=(*plan.notes, *((tried,) if tried else ())))
        checked = partial(_verify_written, stage, case, plan) if request.verify else None
        return execute_plan(plan, request.out, format, name, begin(plan), checked)
    finally:
        checkpoint.close()


def _verify_written(
    stage: Callable[[str], None], case: Case, plan: Plan, new: Path, records: tuple[LeafRecord, ...]
) -> str:
    stage("running both models")
    return verify(case, plan, new, records)


def size_of_plan(plan: Plan) -> int:
    """Size of all leaves that a plan writes, in bytes."""
    return sum(size_of(key_data(row.slot.spec)) for row in plan.planned_leaves)


def _identify_library(
    checkpoint: Checkpoint, models: dict[str, LibraryModel], request: ConversionRequest, former: Manifest | None
) -> TemplateMatch:
    """Identify the library of a checkpoint: the one whose leaves it has, all of them and no others.

    Raises:
        CheckpointError: it is of no library, or of several.
    """
    found: list[TemplateMatch] = []
    errors: list[EquivError] = []
    for model in models.values():
        try:
            found.append(match_template(checkpoint, model, request.drop))
        except EquivError as error:
            errors.append(error)
    if not found:
        # The port with the most matching leaves is the likeliest to have been meant.
        raise max(errors, key=lambda error: error.found if isinstance(error, TemplateMismatch) else math.inf)
    # Streams of random numbers are NNX's: a library that keeps none is not the one that saved them.
    found = [one for one in found if not (one.other_random and one.keeps_no_streams)] or found
    recorded = [one for one in found if former and one.model.port.name == former.target.backend]
    best = max(one.exact_names for one in found)
    likely = recorded or [one for one in found if one.exact_names == best]
    if len(likely) > 1:
        names = " and ".join(one.model.port.name for one in likely)
        raise CheckpointError(f"{checkpoint.file}: its leaves fit {names}.", fix="Pass --from with one of them.")
    return likely[0]
