"""Make the smallest reproduction of where two programs differ: fewest operations, then smallest arrays."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import Changes
from equiv.comparison.explain.reproduction.axes import Axis
from equiv.comparison.explain.reproduction.joins import Join, align_again, find_join
from equiv.comparison.explain.reproduction.script import FUNCTIONS, Draft, Functions
from equiv.comparison.explain.reproduction.segments import FIX, Segment, cut_segments
from equiv.comparison.explain.search import find_divergences
from equiv.comparison.numeric.blocks import element_responses, finite_difference, measure_blocks
from equiv.comparison.numeric.budgets import limit_finite
from equiv.core.budget import rounding_growth
from equiv.core.output_name import OutputName
from equiv.errors import EquivError
from equiv.programs.jaxpr import visit_equations
from equiv.programs.primitives import IDENTITIES
from equiv.programs.transform import select_outputs

MOST_SECONDS = 120.0
"""Seconds of processor time after which no more is tried."""

ENDED = f"There was no time to try more: that ends after {MOST_SECONDS:.0f} s of processor time."

NUDGES = 4
"""Runs with every input moved by an ulp, up or down."""

SHOWN_PART = 0.01
"""The part of the difference, relative to the values, that is left at least where arrays are made smaller."""

CODE_PART = 1e-8
"""How far what the code computes may be from what the program does: their rounding differs, a wrong line shows."""

UNUSABLE = (TypeError, ValueError, IndexError, KeyError, NotImplementedError, ArithmeticError, NameError, RuntimeError)
"""What code that does not fit its arrays raises, some of it from within jax: such code is not written."""

SMALL = (1, 2)
"""Sizes that an axis is cut to, the smallest that still shows the difference."""


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A reproduction, as it is written.

    Attributes:
        functions: of both sides, as code.
        given: name to what an array is, in words.
        rounding: how far rounding moves the result.
        names: of both ports.
        operations: how many each side has.
        values: of both sides where they differ most.
    """

    functions: Functions
    given: Mapping[str, str]
    rounding: float
    names: tuple[str, str]
    operations: tuple[int, int]
    values: tuple[float, float]


@dataclass(frozen=True, eq=False)
class _Shown:
    """What functions return.

    Attributes:
        outs: of both sides.
        rounding: how far rounding moves the result.
        at: where they differ most.
        part: how far that is, over the largest value.
    """

    outs: tuple[np.ndarray, np.ndarray]
    rounding: float
    at: tuple[int, ...]
    part: float


def narrow_runs(runs: ProgramRuns, output: OutputName) -> ProgramRuns:
    """Keep one output of both programs, and what it is made of: of an optimizer, the update of one leaf.

    Args:
        runs: the programs, and what they are run on.
        output: one that both have and that is refuted.
    """
    ours, theirs = (select_outputs(one, (output,)) for one in (runs.reference, runs.candidate))
    return replace(runs, reference=ours, candidate=theirs, refuted=(output,))


def reproduce_difference(runs: ProgramRuns, several: bool = False, ends: float | None = None) -> Reproduction:
    """Make the smallest reproduction of a divergence; call it inside `jax.enable_x64(True)`.

    Args:
        runs: the programs, and what they are run on.
        several: whether there are several: then the tried causes of all others are taken away first.
        ends: processor time after which no more is tried; None: `MOST_SECONDS` from now.

    Raises:
        EquivError: there is none that can be written, or there was no time to find one; it says why.
    """
    problems: list[EquivError] = []
    loops = any(eqn.primitive.name == "scan" for _, eqn in visit_equations(runs.candidate.jaxpr))
    ends = time.process_time() + MOST_SECONDS if ends is None else ends
    for background in _iterate_backgrounds(runs, several):
        for whole_loops in (False, True) if loops else (False,):
            if problems and time.process_time() > ends:
                raise EquivError(f"{problems[0].problem} {ENDED}", fix=problems[0].fix)
            try:
                return _reproduce(runs, background, whole_loops, ends)
            except EquivError as error:
                problems.append(error)
    raise problems[0]


def _iterate_backgrounds(runs: ProgramRuns, several: bool) -> Iterator[Callable[[int], Changes]]:
    """Yield no changes of the candidate, and the causes of all divergences but one; by the number of the probe."""
    if not several:
        yield lambda _: Changes()
    found = find_divergences(runs)
    for one in found.divergences if len(found.divergences) > 1 else ():
        causes = [other.causes[0].trial.changes for other in found.divergences if other is not one and other.causes]

        def together(probe: int, causes: Sequence[Callable[[int], Changes]] = tuple(causes)) -> Changes:
            changes = Changes()
            for cause in causes:
                changes = changes.join(cause(probe))
            return changes

        yield together
    if several:
        yield lambda _: Changes()


def _reproduce(runs: ProgramRuns, background: Callable[[int], Changes], whole_loops: bool, ends: float) -> Reproduction:
    aligned = align_again(runs, background, whole_loops)
    if aligned is None:
        raise EquivError(
            "the difference is not there in float64 on the probes: it is one of rounding to fewer digits.", fix=FIX
        )
    join = find_join(aligned, ends)
    if join is None:
        raise EquivError(
            "no two values were found of which the reference's takes the difference away in the candidate's place.",
            fix=FIX,
        )
    segments = cut_segments(aligned, join)
    draft = Draft(segments, runs.names)
    depth = max(len(segments.reference.operations), len(segments.candidate.operations))
    cut: dict[Axis, Sequence[int]] = {}
    functions = draft.write(cut)
    shown = _show(functions, depth)
    if shown is None or not _are_close(
        shown.outs, (aligned.keep(0, [join.reference]), aligned.keep(1, [join.candidate])), join
    ):
        raise EquivError("the code of the smallest part does not show the difference.", fix=FIX)
    functions, shown = _cut_axes(draft, depth, functions, shown, ends)
    functions = _without_unused(functions)
    given = {f"x{number}": one.text for number, one in enumerate(segments.given)}
    values = tuple(float(np.real(side[shown.at])) for side in shown.outs)
    return Reproduction(
        functions,
        {name: given.get(name, "constant") for name in functions.arrays},
        shown.rounding,
        runs.names,
        (_count(segments.reference), _count(segments.candidate)),
        (values[0], values[1]),
    )


def _count(segment: Segment) -> int:
    return sum(one.primitive not in IDENTITIES for one in segment.operations)


def _are_close(outs: Sequence[np.ndarray], kept: Sequence[Mapping[int, np.ndarray]], join: Join) -> bool:
    """Whether the code computes what the programs do."""
    arrays = kept[0][join.reference], kept[1][join.candidate]
    with np.errstate(all="ignore"):
        return all(
            np.allclose(out.ravel(), array.ravel(), rtol=CODE_PART, atol=CODE_PART, equal_nan=True)
            for out, array in zip(outs, arrays, strict=True)
        )


def _without_unused(functions: Functions) -> Functions:
    used = set(re.findall(r"\b[xc]\d+\b", functions.text))
    return replace(functions, arrays={name: array for name, array in functions.arrays.items() if name in used})


def _cut_axes(draft: Draft, depth: int, functions: Functions, shown: _Shown, ends: float) -> tuple[Functions, _Shown]:
    """Cut one class of axes after the other, as long as the code still shows the difference and there is time."""
    cut: dict[Axis, Sequence[int]] = {}
    result = draft.segments.reference
    for axis in draft.axes.free():
        if time.process_time() > ends:
            break
        place = [n for n in range(len(result.shapes[result.result])) if draft.axes.find((0, result.result, n)) == axis]
        worst = shown.at[place[0]] if place and place[0] < len(shown.at) else 0
        others = [n for n in range(draft.axes.sizes[axis]) if n != worst]
        for size in (*SMALL, (draft.axes.sizes[axis] + 1) // 2):
            if size >= draft.axes.sizes[axis]:
                break
            tried = {**cut, axis: sorted((worst, *others[: size - 1]))}
            try:
                written = draft.write(tried)
            except EquivError:
                break
            after = _show(written, depth)
            if after is not None and after.part >= SHOWN_PART * shown.part:
                cut, functions, shown = tried, written, replace(after, part=shown.part)
                break
    return functions, shown


def _show(functions: Functions, depth: int) -> _Shown | None:
    """Run both functions; None: they fail, or what they return does not differ by more than rounding."""
    ours, theirs = (make_function(functions.text, name) for name in FUNCTIONS)
    given = dict(functions.arrays)
    try:
        outs = _run(ours, given, 0), _run(theirs, given, 0)
        moved = [[_run(side, given, seed) for seed in range(1, NUDGES + 1)] for side in (ours, theirs)]
    except UNUSABLE:
        return None
    if outs[0].shape != outs[1].shape or not outs[0].size:
        return None
    off = finite_difference(*outs)
    off = np.where(np.isnan(off), np.inf, off)
    at = tuple(int(n) for n in np.unravel_index(int(np.argmax(off)), off.shape))
    rounding = max(
        float(np.max(limit_finite(rounding_growth(depth), element_responses(measure_blocks(out, other), out))))
        for out, other in zip(outs, moved, strict=True)
    )
    scale = max(float(np.max(np.abs(side[np.isfinite(side)]), initial=0.0)) for side in outs)
    if not off[at] > rounding:
        return None
    return _Shown(outs, rounding, at, float(off[at] / scale) if scale and np.isfinite(off[at]) else 1.0)


def make_function(text: str, name: str) -> Callable[..., Any]:
    """Make a function of the code, called with a dict of all arrays."""
    namespace: dict[str, Any] = {"jnp": jnp, "lax": lax, "data": {}}
    exec(compile(text, "repro.py", "exec"), namespace)
    function = namespace[name]
    names = function.__code__.co_varnames[: function.__code__.co_argcount]

    def call(arrays: Mapping[str, Any]) -> Any:
        namespace["data"].update(arrays)
        return function(*(arrays[one] for one in names))

    return call


def _run(function: Callable[..., Any], arrays: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """Run a function; with a seed that is not 0 every float is moved by an ulp."""
    rng = np.random.default_rng(seed)

    def given(array: np.ndarray) -> Any:
        if not seed or array.dtype.kind != "f":
            return jnp.asarray(array)
        signs = 2 * rng.integers(0, 2, array.shape) - 1
        return jnp.asarray((array * (1 + np.finfo("float64").eps * signs)).astype(array.dtype))

    return np.asarray(function({name: given(array) for name, array in arrays.items()}), "float64")
