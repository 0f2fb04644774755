"""What the command line does, from Python: `equiv.compare`, `infer_layers`, `freeze` and `convert`; `run` has a file.

The commands and the pytest fixture call these functions.
"""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from equiv.backends.batches import resolve_batch
from equiv.backends.build import identify_library
from equiv.backends.environment import describe_environment
from equiv.backends.patches import isolate_import
from equiv.comparison.frozen.bundle import FrozenReference, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.frozen.sanity import refuse_senseless
from equiv.comparison.pipeline import make_run_result, run_case
from equiv.comparison.state import ReportStage
from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.manifest import Manifest
from equiv.conversion.plan.plan import Choices, Plan
from equiv.conversion.plan.random_state import parse_random_policy
from equiv.conversion.write_plan import WriteProgress
from equiv.core.batch_spec import Batch
from equiv.core.case import Builder, Case, KnownDifference, Layer
from equiv.core.case_files import LoadedCase, builder_sources, check_fields, find_case_files, load_case
from equiv.core.files import write_file
from equiv.core.method_call import Methods
from equiv.core.releases import check_releases
from equiv.core.results import CaseResult, RunResult
from equiv.core.verdict import verdict_of
from equiv.errors import CaseError, EquivError
from equiv.frontends.arguments import check_path, say_nothing
from equiv.infer.builders import locate_builder
from equiv.infer.describe import with_names_caveat
from equiv.infer.draft_case import check_without_run, draft_case
from equiv.infer.session import InferredLayers
from equiv.infer.session import infer_layers as infer_between


def compare(
    left: Builder | str,
    right: Builder | str,
    *,
    batch: Batch,
    layers: Sequence[Layer] | None = None,
    methods: Methods | None = None,
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    optimizer: Callable[[], Any] | None = None,
    known_differences: Sequence[KnownDifference] = (),
    steps: int = 5,
    budget_factor: float = 1.0,
    keep: Sequence[str] = (),
    checks: Sequence[str] | None = None,
    names: tuple[str, str] | None = None,
    progress: ReportStage = say_nothing,
) -> RunResult:
    """Compare two models, as `equiv check` and the pytest fixture `equiv` do.

    Args:
        left: the reference: a function that returns `model`, `(model, train_step)` or `(model, train_step, create)`;
            or its import path, `module:attribute` or `file.py:function`.
        right: the candidate, likewise.
        batch: see `equiv.Case`, as for `layers`, `loss`, `methods`, `optimizer`, `known_differences`, `steps`,
            `budget_factor`, `keep` and `checks`.
        layers: one row per layer, one keyword per port; None: they are inferred.
        methods: see `equiv.core.case.Case`.
        loss: `(outputs, batch)` to a scalar.
        optimizer: returns an optax transformation.
        known_differences: formulas for leaves that differ by design.
        steps: number of train steps.
        budget_factor: a factor on every derived budget, shown with every number.
        keep, checks: inputs whose values are kept; names of the checks that are made, None: all.
        names: of the two ports, as in `layers`. None: their libraries; where both are of one `left` and `right`, or,
            without `layers`, the names of the two functions.
        progress: called with a text for every stage.

    Returns:
        The results, with a verdict: `same`, `different`, `inconclusive` or `error`.

    Raises:
        EquivError: an argument cannot be used.
    """
    case = Case(
        guide="",
        models={},
        batch=batch,
        layers=() if layers is None else layers,  # pyright: ignore[reportArgumentType] - its kind is checked below
        methods=methods,
        loss=loss,
        optimizer=optimizer,
        known_differences=known_differences,  # pyright: ignore[reportArgumentType] - likewise
        steps=steps,
        budget_factor=budget_factor,
        keep=keep,  # pyright: ignore[reportArgumentType] - likewise
        checks=checks,  # pyright: ignore[reportArgumentType] - likewise
    )
    if layers is None:
        return compare_inferred(left, right, case, names, progress)[0]
    return compare_with_layers(left, right, LoadedCase("compare", "", case), names, progress)


def compare_with_layers(
    left: Builder | str,
    right: Builder | str,
    loaded: LoadedCase,
    names: tuple[str, str] | None = None,
    progress: ReportStage = say_nothing,
) -> RunResult:
    """Compare two models through the layer table of a case without models; arguments as of `compare`.

    Raises:
        EquivError: an argument cannot be used.
    """
    check_releases()
    started, clock = datetime.now(UTC), time.perf_counter()
    check_fields(f"{loaded.name}:", loaded.case)
    _check_names(loaded.name, names)
    # A function is a builder as it stands; what a class, an instance or an import path stands for is found out.
    builders = [
        one if inspect.isroutine(one) else locate_builder(one, side).builder
        for side, one in (("left", left), ("right", right))
    ]
    ports = names or _port_names(*builders)
    case = replace(loaded.case, models=dict(zip(ports, builders, strict=True)))
    result = run_case(replace(loaded, case=case, sources=builder_sources(case.models)), progress)
    seconds = round(time.perf_counter() - clock, 3)
    return make_run_result([replace(result, seconds=seconds)], started, seconds)


def compare_inferred(
    left: Builder | str,
    right: Builder | str,
    case: Case,
    names: tuple[str, str] | None = None,
    progress: ReportStage = say_nothing,
) -> tuple[RunResult, InferredLayers]:
    """Infer the layer table of two models, and compare them through it; arguments as of `compare`.

    Args:
        left: the reference.
        right: the candidate.
        case: all but models and layers.
        names: of the two ports; None: see `equiv.infer.builders.port_names`.
        progress: called with a text for every stage.

    Raises:
        EquivError: an argument cannot be used.
    """
    check_releases()
    check_fields("compare:", case)
    progress("reading both ports")
    case = resolve_batch(case)
    found = infer_layers(left, right, batch=case.batch, methods=case.methods, names=names)
    return compare_through(found, LoadedCase("inferred", found.draft.lesson, case), progress), found


def compare_through(found: InferredLayers, loaded: LoadedCase, progress: ReportStage = say_nothing) -> RunResult:
    """Compare two models through their inferred layer table; where it lacks leaves, nothing is run.

    Args:
        found: the layer table.
        loaded: the case, all but models and layers.
        progress: called with a text for every stage.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    if not found.covered:
        checks, (left, right) = check_without_run(found), found.draft.names
        result = CaseResult(
            loaded.name, loaded.lesson, loaded.case.guide, left, (right,), {right: verdict_of(checks)}, checks
        )
        return make_run_result([replace(result, seconds=round(found.seconds, 3))], started, found.seconds)
    defined = {name: one.defined for name, one in zip(found.draft.names, found.draft.builders, strict=True)}
    drafted = replace(loaded, case=draft_case(found.draft, loaded.case), sources=builder_sources(defined))
    result = with_names_caveat(run_case(drafted, progress), found)
    seconds = round(time.perf_counter() - clock, 3)
    return make_run_result([replace(result, seconds=seconds)], started, seconds)


def _port_names(left: Builder, right: Builder) -> tuple[str, str]:
    """The libraries of the two builders; `left` and `right` where both are of one.

    Raises:
        CaseError: one is of no known library.
    """
    sides = {"left": left, "right": right}
    one, two = (identify_library(side, builder).name for side, builder in sides.items())
    return (one, two) if one != two else ("left", "right")


def _check_names(where: str, names: object) -> None:
    if names is None:
        return
    given = names if isinstance(names, tuple | list) else ()
    if len(set(map(str, given))) != 2 or len(given) != 2 or not all(isinstance(one, str) and one for one in given):
        raise CaseError(f"{where}: names is {names!r}, wanted two different names of ports.", fix="Fix names.")


def infer_layers(
    left: Builder | str,
    right: Builder | str,
    *,
    batch: Batch,
    methods: Methods | None = None,
    keep: Sequence[str] = (),
    names: tuple[str, str] | None = None,
) -> InferredLayers:
    """Infer the layer table of two models, as `equiv map` does; arguments as of `compare`.

    Raises:
        EquivError: an argument cannot be used, or a model cannot be built or traced.
    """
    check_releases()
    case = Case("", {}, batch, (), methods=methods, keep=keep)  # pyright: ignore[reportArgumentType] - checked below
    check_fields("infer_layers:", case)
    _check_names("infer_layers", names)
    describe_environment()  # fails early where there is no device
    builders = locate_builder(left, "left"), locate_builder(right, "right")
    return infer_between(builders, resolve_batch(case).inputs, methods, names)


def freeze(
    path: str | Path, output: str | Path, *, port: str = "", progress: ReportStage = say_nothing
) -> FrozenReference:
    """Save a model of a case as a bundle for `run(against=...)`, as `equiv freeze` does.

    Args:
        path: the case file.
        output: the file to write.
        port: the model; empty: the first.
        progress: called with a text for every stage.

    Raises:
        EquivError: it is no case, has no such model, the model cannot be run, or the file cannot be written.
    """
    frozen = freeze_reference(_load_one_case(check_path("path", path), 1), progress, port)
    refuse_senseless(frozen, str(path), "Train it for fewer steps, or with a lower rate: see optimizer= of Case.")
    write_file(check_path("output", output), encode_bundle(frozen), "Give another file with -o.")
    return frozen


def convert(
    checkpoint: str | Path,
    output: str | Path,
    *,
    case: str | Path,
    to: str,
    origin: str | None = None,
    format: str | None = None,
    random: str | None = None,
    step: int | None = None,
    drop: Sequence[str] = (),
    allow_pickle: bool = False,
    allow_nonfinite: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    progress: ReportStage = say_nothing,
    planned: Callable[[Plan], WriteProgress] = lambda _: say_nothing,
) -> Manifest | None:
    """Convert a checkpoint to another library, as `equiv convert` does.

    Args:
        checkpoint: the old checkpoint.
        output: the new one; it must not exist.
        case: the case file whose layer table is used.
        to: port of the new checkpoint.
        origin: port of the old one; None: recognised by its leaves.
        format: of the new checkpoint; None: by the suffix of `output`.
        random: what becomes of random state: `seed:N`, `keep` or `omit`.
        step: number of steps taken, for a library that stores it where the other does not.
        drop: parts of paths that are left out.
        allow_pickle: read a pickle.
        allow_nonfinite: accept NaN and infinite values.
        verify: run both models, each from its own checkpoint, and compare them.
        dry_run: stop at the plan.
        progress: called with a text for every stage.
        planned: called with the plan, before anything is written; returns what is called with every size written.

    Returns:
        The manifest, which is written beside the new checkpoint, too; None: a dry run.

    Raises:
        EquivError: it cannot be converted, and nothing has been written; or the converted model is different.
    """
    check_releases()
    request = ConversionRequest(
        check_path("checkpoint", checkpoint),
        _load_one_case(check_path("case", case)),
        to,
        check_path("output", output),
        origin=origin,
        format=format,
        choices=Choices(parse_random_policy(str(random)) if random else None, step),
        drop=tuple(drop),
        allow_pickle=allow_pickle,
        nonfinite=allow_nonfinite,
        verify=verify,
    )
    return convert_checkpoint(request, progress, planned, dry_run)


def _load_one_case(path: Path, least_models: int = 2) -> LoadedCase:
    files = find_case_files((path,))
    if len(files) != 1:
        raise EquivError(f"{path}: holds {len(files)} cases, wanted one.", fix="Give a case file.")
    return isolate_import(lambda: load_case(files[0], least_models))
