"""A model of one environment against a model of another: the old one is read and frozen where it lives."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from equiv.backends.batches import resolve_batch
from equiv.backends.environment import describe_environment
from equiv.comparison.frozen.sanity import refuse_senseless
from equiv.comparison.pipeline import RunOptions, make_run_result, run_case
from equiv.comparison.state import ReportStage
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase, builder_sources, check_fields
from equiv.core.releases import check_releases
from equiv.core.results import RunResult
from equiv.frontends.arguments import say_nothing
from equiv.frontends.functions import compare_through
from equiv.infer.builders import locate_builder
from equiv.infer.describe import with_names_caveat
from equiv.infer.draft_case import draft_case
from equiv.infer.other_python.interpreter import start_python
from equiv.infer.session import InferredLayers
from equiv.infer.session import infer_layers as infer_between


def compare_across(
    left: str, left_python: str, right: str, case: Case, progress: ReportStage = say_nothing
) -> tuple[RunResult, InferredLayers]:
    """Infer the layer table of two models, one of them in another environment, and compare them through it.

    Args:
        left: import path of the reference's builder.
        left_python: the interpreter that imports it, where equiv is installed too.
        right: import path of the candidate's builder, which this interpreter imports.
        case: all but models and layers; its loss and optimizer are the default ones.
        progress: called with a text for every stage.

    Raises:
        EquivError: an argument cannot be used, here or there.
    """
    check_releases()
    check_fields("compare:", case)
    case = resolve_batch(case)
    with start_python(left_python) as other:
        progress(f"reading both ports, the left one with {left_python}")
        builders = other.locate(left), locate_builder(right, "right")
        describe_environment()  # fails early where there is no device
        found = infer_between(builders, case.inputs, case.methods)
        loaded = LoadedCase("inferred", found.draft.lesson, case)
        if not found.covered:
            return compare_through(found, loaded, progress), found
        progress(f"freezing the left port with {left_python}")
        drafted = draft_case(found.draft, case)
        asked = replace(drafted, models={}, known_differences=(), checks=None)
        frozen = other.freeze(found.draft.lesson, asked, found.draft.names[0])
    refuse_senseless(frozen, left_python)
    started, clock = datetime.now(UTC), time.perf_counter()
    candidate = found.draft.names[1]
    sources = builder_sources({candidate: found.draft.builders[1].defined})
    result = run_case(replace(loaded, case=drafted, sources=sources), progress, RunOptions(against=frozen))
    result = with_names_caveat(result, found)
    seconds = round(time.perf_counter() - clock, 3)
    return make_run_result([replace(result, seconds=seconds)], started, seconds), found
