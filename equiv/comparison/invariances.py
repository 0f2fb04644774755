"""Compare each port with itself: a batch with its rows alone, and padded rows with the same rows without padding.

A fault that every port has is found by no comparison of two of them. A port is compared with itself as two ports are:
by proof, and on the same probes with the same budgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from equiv.comparison.checks import CHECKS
from equiv.comparison.observation import Comparison, InvarianceRun, RoundingNoise
from equiv.comparison.stages import check_structure, describe_side, open_case
from equiv.comparison.state import CaseState, Stage, advance
from equiv.core.batch_parts import PartedCall, find_parts, rows_of, title_of
from equiv.core.case import BatchInvariance, Case, Layer, Padding, setting_for
from equiv.core.checks import INVARIANCE
from equiv.core.layer_kinds import ONLY
from equiv.core.output_name import ProgramName
from equiv.core.results import CheckResult
from equiv.errors import CaseError, EquivError

OUTPUTS = "outputs"
"""The check that is made of a port and itself."""

PARTS = "parts"
"""Name of the call whose parts are compared."""

Value = TypeVar("Value")


def check_invariances(state: CaseState, stages: Sequence[Stage]) -> CaseState:
    """Check what the case declares of each port by itself.

    Args:
        state: the case, compared.
        stages: those of a comparison after structure.
    """
    case = state.built_case.case
    if INVARIANCE not in state.wanted or not state.candidates:
        return state
    names = [name for name in (state.reference, *state.candidates) if name in state.built_case.built]
    runs: dict[str, list[InvarianceRun]] = {name: [] for name in names}
    for invariance in case.invariances:
        for name in names:
            state.progress(f"calling {name} with parts of the batch")
            runs[name].append(_compare_with_itself(state, name, invariance, stages))
    found: list[CheckResult] = []
    for candidate in state.candidates:
        both = tuple(run for name in (state.reference, candidate) for run in runs.get(name, ()))
        sides = describe_side(state, state.reference), describe_side(state, candidate)
        result = CHECKS[INVARIANCE].run(Comparison(case, *sides, RoundingNoise({}, {}, {}), invariances=both))
        found += [] if result is None else [result]
    judged = {one.candidate for one in found}
    checks = tuple(one for one in state.checks if one.check != INVARIANCE or one.candidate not in judged)
    return replace(state, checks=(*checks, *found))


def _compare_with_itself(
    state: CaseState, name: str, invariance: BatchInvariance | Padding, stages: Sequence[Stage]
) -> InvarianceRun:
    methods = state.built_case.request.methods
    method = invariance.method or next(iter(methods))
    title, alone = title_of(invariance, method), f"{name}_alone"
    try:
        if method not in methods:
            raise CaseError(
                f"invariances: {method!r} is no method of the case, which has {', '.join(methods)}.",
                fix="Name one of these.",
            )
        call = methods[method]
        parts = find_parts(invariance, state.built_case.entries, call.inputs)
        parted = PartedCall((method,), known={method: call}, parts=parts, alone=alone)
        library = state.built_case.built[name].port.library
        opened = open_case(_case_with_itself(state.built_case.case, name, alone, library, parted), state.progress)
        found = advance(check_structure(opened), stages)
        _refuse_draws(found, name)
    except EquivError as error:
        return InvarianceRun(name, title, problem=str(error).replace(alone, name))
    return replace(_read_run(name, title, found, alone), tried=rows_of(parts))


def _read_run(name: str, title: str, found: CaseState, alone: str) -> InvarianceRun:
    """What was found of the parts; any check without these says why."""
    results = [check for check in found.checks if check.candidate == alone]
    outputs = [one for check in results if check.check == OUTPUTS for one in check.findings]
    findings = tuple(one for one in outputs if one.output is not None and one.output.program.method == PARTS)
    if not findings:
        said = next((check.summary for check in results if check.check == OUTPUTS), "it could not be compared")
        return InvarianceRun(name, title, problem=said.replace(alone, name))
    return InvarianceRun(name, title, findings)


def _refuse_draws(found: CaseState, name: str) -> None:
    """Raise where a call draws: of a batch and of one row of it other numbers are drawn.

    Raises:
        CaseError: naming the first draw.
    """
    for traced in found.traced.values():
        for part in traced.programs.parts:
            if part.name == ProgramName(part.name.kind, PARTS) and part.draws:
                raise CaseError(
                    f"{name}: it draws random numbers in eval mode, at {part.draws[0].where}, others for one row.",
                    fix="Name a method that draws none.",
                    port=name,
                )


def _case_with_itself(case: Case, name: str, alone: str, library: str, parted: PartedCall) -> Case:
    """The case of one port and itself, called with parts of the batch."""

    def of_both(settings: Mapping[str, Value]) -> dict[str, Value]:
        found = setting_for(settings, name, library)
        return {} if found is None else {name: found, alone: found}

    def row_of_both(row: Layer) -> Layer:
        first = row.channels_first
        channels: Any = of_both(first) if isinstance(first, Mapping) else first
        return replace(row, scopes=of_both(row.scopes), layouts=of_both(row.layouts), channels_first=channels)

    rows = (row_of_both(row) for row in case.layers if row.kind != ONLY)
    return Case(
        "",
        dict.fromkeys((name, alone), case.models[name]),
        case.batch,
        tuple(row for row in rows if row.scopes),
        methods=case.methods,
        sequences={PARTS: parted},
        initial=case.initial,
        loss=case.loss,
        keep=case.keep,
        checks=(OUTPUTS,),
        budget_factor=case.budget_factor,
    )
