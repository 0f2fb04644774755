"""A leaf that one port has and the other lacks: at which value of it both are the same, tried and not guessed.

The ports are called on one batch with every value that is likely; where their outputs are closest, the leaf is held at
that value, and the whole comparison is made.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Leaves
from equiv.backends.build import call_user_code
from equiv.backends.leaf_table import to_native_leaves
from equiv.comparison.state import STRUCTURE, CaseState
from equiv.compat import jit_with_options
from equiv.core.case import Case
from equiv.core.headline import severity
from equiv.core.layer_kinds import ONLY
from equiv.core.layers import only
from equiv.core.leaves import HeldValue, LeafTable, MappedLeaf, unmatched_leaves
from equiv.core.output_name import OutputName, ProgramName, leaf_input
from equiv.core.results import CaseResult, CheckResult
from equiv.core.verdict import verdict_of
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.held_leaves import describe_value, held_arrays, initial_arrays
from equiv.programs.probes import Probe, add_library_only_leaves, make_probe
from equiv.programs.trace import Tracer, trace_forward
from equiv.programs.transform import select_outputs
from equiv.programs.unread import needed_inputs

TRIAL_SEED = 404
"""Seed of the batch and leaves on which values are compared; different from the seeds of a run."""

MAX_TRIED = 81
"""Most choices of values that are all tried, as of four leaves with three values each; beyond, leaf by leaf."""

Values = tuple[HeldValue, ...]
"""A value for each of the leaves that one port has."""


@dataclass(frozen=True)
class LoneLeaf:
    """A leaf that one of two ports has.

    Attributes:
        port: name of the port that has it.
        other: name of the port that lacks it.
        leaf: the leaf.
        options: the values that are tried, the likeliest first.
        words: each of them in words.
        unread: whether no call depends on it.
    """

    port: str
    other: str
    leaf: MappedLeaf
    options: Values
    words: Mapping[HeldValue, str]
    unread: bool


def try_values(state: CaseState, result: CaseResult, compare: Callable[[Case], CaseResult]) -> CaseResult:
    """Compare the candidates whose leaves are not those of the reference where the other leaves have a value.

    Args:
        state: the case, its structure checked.
        result: what was found of it; the candidates that are meant have their other checks blocked.
        compare: compares the ports of a case.
    """
    asked = state.built_case.case.checks
    if asked is not None and "outputs" not in asked:
        return result  # nothing that is compared would say where the ports are the same
    for candidate in result.candidates:
        if alone := _lone_leaves(state, candidate):
            state.progress(f"trying values of {', '.join(one.leaf.name for one in alone)}")
            values = _closest_values(state.built_case, (state.reference, candidate), alone)
            try:
                trial = compare(_held_case(state, candidate, alone, values))
            except EquivError:
                continue  # the structure says what there is to say
            result = _with_trial(result, candidate, alone, values, trial)
    return result


def _lone_leaves(state: CaseState, candidate: str) -> list[LoneLeaf]:
    """The leaves that one of two ports has; none where more than that is wrong with their structure."""
    built = state.built_case.built
    if state.reference not in built or candidate not in built:
        return []
    sides = built[state.reference], built[candidate]
    one, two = (side.table for side in sides)
    pairs = unmatched_leaves(one, two)
    ours = {leaf.name: leaf.spec for leaf in one.leaves}
    if any(ours.get(leaf.name, leaf.spec) != leaf.spec for leaf in two.leaves) or any(leaf.region for _, leaf in pairs):
        return []
    found = []
    for port, leaf in pairs:
        mapped, other = sides if port == one.port else sides[::-1]
        try:
            initial = initial_arrays(mapped.port, [leaf.key])[leaf.key]
            unread = call_user_code(port, "tracing", partial(_is_unread, state.built_case.tracers[port], leaf))
        except EquivError:
            return []  # a port that cannot be traced or initialised has nothing that could be held at a value
        options, words = _options(initial)
        found.append(LoneLeaf(port, other.port.name, leaf, options, words, unread))
    return found


def _options(initial: np.ndarray | None) -> tuple[Values, Mapping[HeldValue, str]]:
    """What the library initialises a leaf to, unless it draws that, then 0 and 1."""
    words: dict[HeldValue, str] = {}
    if initial is not None:
        text = describe_value(initial)
        number = initial.size > 0 and bool((initial == initial.flat[0]).all())
        words[float(initial.flat[0]) if number else "initial"] = text
    for value in (0.0, 1.0):
        words.setdefault(value, f"{value:g}")
    return tuple(words), words


def _is_unread(tracer: Tracer, leaf: MappedLeaf) -> bool:
    """Whether no call of a port depends on a leaf, but for what it makes of that leaf itself."""
    for method in tracer.request.methods:
        for mode in tracer.modes():
            program = trace_forward(tracer, ProgramName(mode, method))
            own = OutputName(program.name, "state", leaf=leaf.name)
            rest = select_outputs(program, tuple(one for one in program.outputs if one != own))
            needed = dict(zip(rest.inputs, needed_inputs(rest.jaxpr), strict=True))
            if needed.get(leaf_input(leaf.name)) is not None:
                return False
    return True


def _closest_values(built_case: BuiltCase, names: tuple[str, str], alone: Sequence[LoneLeaf]) -> Values:
    """The values with which the outputs of both ports are closest; of equally close ones the likeliest."""
    first: Values = tuple(one.options[0] for one in alone)
    try:
        difference = _Difference(built_case, names, alone)
        if math.prod(len(one.options) for one in alone) <= MAX_TRIED:
            choices: list[Values] = list(product(*(one.options for one in alone)))
            return min(choices, key=difference)
        best: Values = first
        for at, one in enumerate(alone):
            tries: list[Values] = [(*best[:at], value, *best[at + 1 :]) for value in one.options]
            best = min(tries, key=difference)
        return best
    except EquivError:
        return first  # such as a port that cannot be run; the comparison says so


class _Difference:
    """The difference between the outputs of two ports, for values of the leaves that one of them has; in eval mode."""

    def __init__(self, built_case: BuiltCase, names: tuple[str, str], alone: Sequence[LoneLeaf]) -> None:
        tables = [built_case.built[name].table for name in names]
        shared = {*tables[0].names()} & {*tables[1].names()}
        common = LeafTable(names[0], tuple(leaf for leaf in tables[0].leaves if leaf.name in shared))
        probe = make_probe("values", TRIAL_SEED, common, built_case.entries, 1)
        self.alone = alone
        self.calls = [_compile_call(built_case.tracers[name], probe) for name in names]
        self.built = [built_case.built[name] for name in names]

    def __call__(self, values: Values) -> float:
        """The largest difference, relative to the largest value of the output."""
        given = list(zip(self.alone, values, strict=True))
        sides = [
            call({**held_arrays(mapped, [(one.leaf, value) for one, value in given if one.port == mapped.port.name])})
            for call, mapped in zip(self.calls, self.built, strict=True)
        ]
        return max((_distance(one, two) for one, two in zip(*sides, strict=False)), default=0.0)


def _compile_call(tracer: Tracer, probe: Probe) -> Callable[[Mapping[Any, Any]], list[np.ndarray]]:
    """A function of a port's own leaves to its outputs on a probe, in eval mode."""
    port, table = tracer.port, tracer.table
    lone = {leaf.key for leaf in table.leaves if not leaf.library_only and leaf.name not in probe.variables}
    rest = replace(table, leaves=tuple(leaf for leaf in table.leaves if leaf.key not in lone))
    fixed = to_native_leaves(rest, add_library_only_leaves(rest, probe.variables))

    def run(own: list[Any], fixed: Leaves, key: Any) -> list[Any]:
        native = {**port.init(key), **fixed, **dict(zip(sorted(lone), own, strict=True))}
        found = []
        for method, asked in tracer.request.methods.items():
            inputs = tuple(probe.batches[name][0] for name in asked.inputs)
            outputs, _ = port.apply({one: native[one] for one in port.leaves}, method, inputs, False, key)
            found += jax.tree.leaves(outputs)
        return found

    compiled = jit_with_options(run, FAST_COMPILE_OPTIONS)

    def call(arrays: Mapping[Any, Any]) -> list[np.ndarray]:
        own = [arrays[key] for key in sorted(lone)]
        results = call_user_code(port.name, "running", lambda: compiled(own, fixed, jax.random.key(TRIAL_SEED)))
        return [np.asarray(one) for one in results]

    return call


def _distance(one: np.ndarray, two: np.ndarray) -> float:
    if one.shape != two.shape:
        return float("inf")
    ours, theirs = (np.asarray(array, "complex128" if array.dtype.kind == "c" else "float64") for array in (one, two))
    difference = np.max(np.abs(ours - theirs), initial=0.0)
    largest = np.max(np.abs(ours), initial=0.0)
    found = float(difference / largest) if largest else float(difference)
    return float("inf") if np.isnan(found) else found


def _held_case(state: CaseState, candidate: str, alone: Sequence[LoneLeaf], values: Values) -> Case:
    """The case of two ports, with these leaves held at these values."""
    case, names = state.built_case.case, {one.leaf.name for one in alone}
    rows = [row for row in case.layers if not (row.kind == ONLY and row.path in names)]
    held = [only(one.port, one.leaf.name, value) for one, value in zip(alone, values, strict=True)]
    models = {name: builder for name, builder in case.models.items() if name in (state.reference, candidate)}
    return replace(case, models=models, layers=(*rows, *held))


def _with_trial(
    result: CaseResult, candidate: str, alone: Sequence[LoneLeaf], values: Values, trial: CaseResult
) -> CaseResult:
    """Put what was found at these values in place of the blocked checks of a candidate."""
    notes = dict(_notes(candidate, alone, values, trial))
    checks: list[CheckResult] = []
    for check in result.checks:
        if check.candidate != candidate:
            checks.append(check)
        elif check.check == STRUCTURE:
            checks.append(_explained(check, result.reference, alone, notes))
            checks += [one for one in trial.checks if one.check != STRUCTURE]
    verdicts = result.verdicts | {candidate: verdict_of(tuple(one for one in checks if one.candidate == candidate))}
    compared = result.scope is not None and result.scope.ran
    if result.scope is not None and trial.scope is not None:
        scope = result.scope if compared else trial.scope
        one = candidate if len(result.candidates) > 1 else ""
        held = tuple(replace(leaf, candidate=one) for leaf in trial.scope.held)
        result = replace(result, scope=replace(scope, held=(*result.scope.held, *held)))
    return replace(result, checks=tuple(checks), verdicts=verdicts, trials=result.trials if compared else trial.trials)


def _explained(check: CheckResult, reference: str, alone: Sequence[LoneLeaf], notes: Mapping[str, str]) -> CheckResult:
    specs = {one.leaf.name: (str(one.leaf.spec), "none")[:: 1 if one.port == reference else -1] for one in alone}
    findings = tuple(
        replace(one, reference=specs[one.structure][0], candidate=specs[one.structure][1], note=notes[one.structure])
        if one.structure in specs
        else one
        for one in check.findings
    )
    return replace(check, findings=findings)


def _notes(candidate: str, alone: Sequence[LoneLeaf], values: Values, trial: CaseResult) -> Iterator[tuple[str, str]]:
    """Yield for each leaf what was found at the values, in words."""
    read: list[tuple[LoneLeaf, HeldValue]] = [
        (one, value) for one, value in zip(alone, values, strict=True) if not one.unread
    ]
    where = " and ".join(f"{'it' if len(alone) == 1 else one.leaf.name} is {one.words[value]}" for one, value in read)
    for one in alone:
        lacks = f"{one.other} has no counterpart of it"
        rest = f"same where {where}" if where else "all the rest is the same"
        if trial.verdicts.get(candidate) == "different":
            tried = ", ".join(dict.fromkeys(text for lone, _ in read for text in lone.words.values()))
            first = _first_difference(trial, candidate)
            rest = f"not the same at any value tried ({tried}); closest where {where}: {first}" if where else first
        elif trial.verdicts.get(candidate) != "same":
            rest = f"where {where}, it is not known whether they are the same" if where else "the rest is not known"
        yield one.leaf.name, f"{lacks}; {'no call depends on it; ' if one.unread else ''}{rest}"


def _first_difference(trial: CaseResult, candidate: str) -> str:
    """The worst finding of the first check that is refuted, in words."""
    for check in trial.checks:
        refuted = [one for one in check.findings if one.grade == "refuted"]
        if check.candidate == candidate and refuted:
            worst = max(refuted, key=severity)
            return f"{check.check}, {worst.place} differs"
    return "they differ"
