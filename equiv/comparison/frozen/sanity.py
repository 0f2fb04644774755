"""Refuse a bundle whose numbers cannot be those of a reference: a budget out of one would accept anything."""

from collections.abc import Iterator, Mapping

import numpy as np

from equiv.comparison.frozen.bundle import FrozenEdge, FrozenOutputs, FrozenProbe, FrozenProgram, FrozenReference
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName
from equiv.errors import EquivError
from equiv.programs.probes import widen_array

LARGEST_MOVE = 2.0
"""Largest response of an output over the largest number of its probe: so far apart two numbers of that size can be."""


def refuse_senseless(
    frozen: FrozenReference, source: str, fix: str = "Freeze the reference again with equiv freeze."
) -> None:
    """Check that shapes, counts and responses of a bundle fit together; nothing is returned.

    It makes sure that a bundle cannot ask for less than a living reference does. It does not make sure that its outputs
    are those of its model: who writes a bundle is trusted with that.

    Args:
        frozen: the reference.
        source: its file, for the message.
        fix: what to do about it.

    Raises:
        EquivError: the first thing that does not fit.
    """
    if problem := next(_problems(frozen), ""):
        raise EquivError(f"{source}: {problem}.", fix=fix)


def _problems(frozen: FrozenReference) -> Iterator[str]:
    """Yield what does not fit."""
    if frozen.steps < 1:
        yield f"{frozen.steps} train steps"
    if not (np.isfinite(frozen.default_rate) and frozen.default_rate > 0):
        yield f"the rate of the default train step is {frozen.default_rate}"
    if not frozen.probes:
        yield "it has no probes"
    for leaf in frozen.leaves:
        if any(size < 0 for size in (*leaf.spec.shape, *leaf.native_shape)):
            yield f"{leaf.name} has the shape {leaf.spec.shape}, natively {leaf.native_shape}"
    for part in filter(None, (*frozen.parts, frozen.begin, frozen.step)):
        yield from _program_problems(part)
    for output, depth in frozen.depth.items():
        if depth < 0:
            yield f"{output} has {depth} rounded operations in a row"
    for probe in frozen.probes:
        yield from _probe_problems(frozen, probe)
        yield from _noise_problems(frozen, probe, probe)
    for edge in frozen.edges if frozen.probes else ():
        yield from edge_problems(frozen, edge)


def edge_problems(frozen: FrozenReference, edge: FrozenEdge) -> Iterator[str]:
    """Yield what of an edge probe does not fit.

    Args:
        frozen: the bundle, whose first probe it was made from.
        edge: the probe.
    """
    name, first = edge.probe.name, frozen.probes[0]
    if [one.name for one in (*frozen.probes, *(one.probe for one in frozen.edges))].count(name) > 1:
        yield f"it has two probes {name}"
    if edge.late and (len(edge.late) != frozen.steps or min(edge.late) < 0):
        yield f"probe {name} sets counters to {edge.late}, in {frozen.steps} train steps"
    if not all(0 <= one <= 1 for one in edge.tails):
        yield f"probe {name} has draws of {edge.tails}, not from 0 to 1"
    if unknown := {*edge.probe.variables} - {*first.variables} | {*edge.probe.batches} - {*first.batches}:
        yield f"probe {name} has {min(unknown)}, which probe {first.name} has not"
    yield from _probe_problems(frozen, edge.probe)
    yield from _noise_problems(frozen, edge.probe, first)


def _program_problems(part: FrozenProgram) -> Iterator[str]:
    if len(part.needs) != len(part.outputs):
        yield f"{part.name} has {len(part.outputs)} outputs, and what {len(part.needs)} of them depend on"
    for numbers in part.needs:
        if any(not 0 <= number < len(part.inputs) for number in numbers):
            yield f"{part.name} has {len(part.inputs)} inputs, and depends on number {max(numbers, key=abs)}"
    for draw in part.draws:
        if any(size < 0 for size in draw.shape):
            yield f"{part.name} draws bits of shape {draw.shape}"


def _probe_problems(frozen: FrozenReference, probe: FrozenProbe) -> Iterator[str]:
    for leaf in frozen.leaves:
        array = probe.variables.get(leaf.name)
        if array is not None and (array.shape, str(array.dtype)) != (leaf.spec.shape, leaf.spec.dtype):
            yield (
                f"probe {probe.name} has {leaf.name} as {array.dtype}{list(array.shape)}, "
                f"its table as {leaf.spec.dtype}{list(leaf.spec.shape)}"
            )
    for entry, array in probe.batches.items():
        if array.shape[:1] != (frozen.steps,):
            sizes = list(array.shape)
            yield f"probe {probe.name} has {entry} as {sizes}, not one batch for each of {frozen.steps} steps"


def _noise_problems(frozen: FrozenReference, probe: FrozenProbe, first: FrozenProbe) -> Iterator[str]:
    """Yield responses that are too large for what is in their probe, or in the one that it was made from."""
    yield from _response_problems(probe.name, (probe.native, first.native), frozen.noise)
    if probe.float64 is not None:
        yield from _response_problems(probe.name, (probe.float64, first.float64 or {}), frozen.float64_noise)


def _response_problems(
    probe: str, outputs: tuple[FrozenOutputs, ...], noise: Mapping[str, Mapping[OutputName, Responses]]
) -> Iterator[str]:
    floats = [array for one in outputs for array in one.values() if str(array.dtype) in INEXACT_DTYPES]
    largest = max((_largest_finite(array) for array in floats), default=0.0)
    for output, known in noise.get(probe, {}).items():
        numbers = (known.largest, *known.blocks)
        if len(known.blocks) != len(known.exponents) or not all(np.isfinite(one) and one >= 0 for one in numbers):
            yield f"{output} has responses on probe {probe} that are no sizes: {numbers[:3]}"
        elif max(numbers) > LARGEST_MOVE * max(largest, float(np.finfo("float32").tiny)):
            yield (
                f"{output} is said to move by {max(numbers):.3g} on probe {probe} for one ulp in every input, where "
                f"nothing is larger than {largest:.3g}: nothing could be compared"
            )


def _largest_finite(array: np.ndarray) -> float:
    wide = np.abs(widen_array(array))
    return float(np.max(wide, initial=0.0, where=np.isfinite(wide)))
