"""A checkpoint taken over: opened, located, planned, written, and, if asked, run beside the original."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from equiv.convert import manifest as manifests
from equiv.convert.formats.checkpoint import Checkpoint, CheckpointError, Unfit, size_of
from equiv.convert.formats.registry import format_for, open_checkpoint
from equiv.convert.manifest import LeafRecord, Manifest
from equiv.convert.plan.plan import Choices, Plan, make_plan
from equiv.convert.source.expected_leaves import Model, model_of
from equiv.convert.source.locate import Located, locate
from equiv.convert.source.located_checkpoint import Source
from equiv.convert.source.validate import key_data
from equiv.convert.verify import check_training, verify
from equiv.convert.write_plan import Progress, carry_out, check_place
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.errors import EquivError


@dataclass(frozen=True)
class Request:
    """What is to be converted, and how.

    Attributes:
        checkpoint: the old checkpoint.
        loaded: the case whose mapping is used.
        target: library of the new one.
        out: where it is written.
        origin: library of the old one; None: it is found out.
        format: of the new one; None: by the suffix of `out`.
        choices: see `Choices`; what a former conversion kept is added.
        drop: parts of paths that are left out.
        allow_pickle: whether a pickle may be read.
        nonfinite: whether NaN and infinite values are taken over.
        verify: whether both models are run.
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


def convert(
    request: Request,
    stage: Callable[[str], None] = lambda _: None,
    begin: Callable[[Plan], Progress] = lambda _: lambda _: None,
    dry: bool = False,
) -> tuple[Plan, Manifest | None]:
    """Take a checkpoint over to another library.

    Args:
        request: what, and how.
        stage: told what is being done.
        begin: told the plan before anything is written; gives what is told the progress.
        dry: stop at the plan.

    Raises:
        CheckpointError: the checkpoint cannot be taken over; nothing has been written.
        EquivError: the case cannot be used.
    """
    case, name = request.loaded.case, request.loaded.name
    for asked in (request.target, request.origin):
        if asked is not None and asked not in case.models:
            raise EquivError(f"{name}: the case has no {asked}; it has {', '.join(case.models)}. Give another library.")
    format = format_for(request.out, request.format)
    if not dry:
        check_place(request.out, request.checkpoint)
    stage("opening the checkpoint")
    checkpoint = open_checkpoint(request.checkpoint, request.allow_pickle)
    try:
        stage("building the models")
        models = {backend: model_of(case, backend) for backend in _wanted(case, request)}
        former = manifests.read(request.checkpoint)
        located = _identify(checkpoint, models, request, former)
        source = Source(checkpoint, located, request.nonfinite)
        target = models.get(request.target) or model_of(case, request.target)
        kept = former.kept if former else ()
        plan = make_plan(source, target, replace(request.choices, kept=(*request.choices.kept, *kept)))
        if dry:
            return plan, None
        stage("trying the optimizer")
        tried = check_training(case, plan)
        plan = replace(plan, notes=(*plan.notes, *((tried,) if tried else ())))
        checked = partial(_verified, stage, case, plan) if request.verify else None
        return plan, carry_out(plan, request.out, format, name, begin(plan), checked)
    finally:
        checkpoint.close()


def _verified(stage: Callable[[str], None], case: Case, plan: Plan, new: Path, records: tuple[LeafRecord, ...]) -> str:
    stage("running both models")
    return verify(case, plan, new, records)


def size_of_plan(plan: Plan) -> int:
    """Bytes of all leaves that a plan writes."""
    return sum(size_of(key_data(row.slot.spec)) for row in plan.rows)


def _wanted(case: Case, request: Request) -> Sequence[str]:
    return [request.origin] if request.origin else list(case.models)


def _identify(checkpoint: Checkpoint, models: dict[str, Model], request: Request, former: Manifest | None) -> Located:
    """Whose checkpoint it is: the library whose leaves are all there, and none besides.

    Raises:
        CheckpointError: nobody's, or that of several libraries.
    """
    found: list[Located] = []
    errors: list[EquivError] = []
    for model in models.values():
        try:
            found.append(locate(checkpoint, model, request.drop))
        except EquivError as error:
            errors.append(error)
    if not found:
        # Of several readings the one that found the most is the likeliest to have been meant.
        raise max(errors, key=lambda error: error.found if isinstance(error, Unfit) else math.inf)
    said = [one for one in found if former and one.model.port.backend == former.target.backend]
    best = max(one.alike for one in found)
    likely = said or [one for one in found if one.alike == best]
    if len(likely) > 1:
        names = " and ".join(one.model.port.backend for one in likely)
        raise CheckpointError(f"{checkpoint.file}: it could be of {names}. Say --from with one of them.")
    return likely[0]
