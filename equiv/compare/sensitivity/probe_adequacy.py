"""Are the probes able to show a fault? Every leaf must move an output, every swap of two alike leaves must be noticed.

Fresh initialisation fails this: its zeros and ones hide half of all swapped leaves.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from equiv.compare.numeric.run_port import Prepared
from equiv.compare.observation import Noise, Outputs
from equiv.core.batch_spec import FLOATS
from equiv.core.results import LEVEL, Finding
from equiv.programs.compiled import run
from equiv.programs.probes import Arrays, Probe, ulp


def adequacy(prepared: Prepared, probes: tuple[Probe, ...], base: Outputs, noise: Noise) -> tuple[Finding, ...]:
    """What the first probe can tell apart in the reference, leaf by leaf and pair by pair.

    Args:
        prepared: the compiled reference.
        probes: its probes; the first is changed.
        base: what the reference gives on it.
        noise: what rounding does to it.
    """
    probe = probes[0]
    budgets = {name: _budget(name, array, noise) for name, array in base.items() if np.isfinite(array).all()}
    moved = [(f"moving {leaf}", (leaf, leaf), changed) for leaf, changed in _moved(probe)]
    swapped = [(f"swapping {' and '.join(pair)}", pair, changed) for pair, changed in _swapped(probe)]
    return tuple(
        _judged(place, run(prepared.native, changed), base, budgets, leaves)
        for place, leaves, changed in (*moved, *swapped)
    )


def _moved(probe: Probe) -> Iterator[tuple[str, Probe]]:
    for leaf, array in probe.variables.items():
        # Another factor at every element: a norm would hide a common one.
        factors = np.linspace(1.25, 1.75, num=array.size).reshape(array.shape)
        changed = array * factors + 0.125 if str(array.dtype) in FLOATS else array + 1
        yield leaf, _with(probe, {leaf: changed.astype(array.dtype)})


def _swapped(probe: Probe) -> Iterator[tuple[tuple[str, str], Probe]]:
    for one, other in combinations(probe.variables, 2):
        first, second = probe.variables[one], probe.variables[other]
        if first.shape == second.shape and first.dtype == second.dtype:
            yield (one, other), _with(probe, {one: second, other: first})


def _with(probe: Probe, changed: Arrays) -> Probe:
    return replace(probe, variables={**probe.variables, **changed})


def _judged(
    place: str, outputs: Outputs, base: Outputs, budgets: Mapping[str, float], leaves: tuple[str, str]
) -> Finding:
    """Whether a changed probe shows; `leaves`: those changed places, or the one moved, twice.

    A parameter that does nothing shows only in what training hands on of it: that tells nothing of a port.
    """
    shown, ratio = "", 0.0
    for name, budget in budgets.items():
        # A port that takes one leaf for the other does so in what it gives, too.
        other = _exchanged(name, *leaves)
        if other not in outputs or leaves == (name.removeprefix("train: "),) * 2:
            continue
        found = _over(base[name], outputs[other], budget)
        if found > ratio:
            shown, ratio = name, found
    if ratio > 1:
        return Finding(place, "exact", ratio=ratio if math.isfinite(ratio) else None, note=f"seen in {shown}")
    return Finding(place, "unidentifiable", ratio=ratio, note="no output, gradient, state or step of any probe tells")


def _exchanged(name: str, one: str, other: str) -> str:
    """An output's name with two leaves in each other's place: `gradient a`, `state a`, `a`, `opt/0/mu/a`."""
    for leaf, new in ((one, other), (other, one)):
        head = name.removesuffix(leaf)
        if head != name and head[-1:] in (" ", "/"):
            return head + new
    return name


def _budget(name: str, array: np.ndarray, noise: Noise) -> float:
    """What rounding may do to an output: at least an ulp of its largest element."""
    size = ulp(array.dtype) if str(array.dtype) in FLOATS else 0.0
    least = size * float(np.max(np.abs(array.astype("float64")), initial=0.0))
    response = max(noise.native.get("0", {}).get(name, 0.0), least)
    return response * math.sqrt(noise.depth.get(name, 1)) * LEVEL


def _over(before: np.ndarray, after: np.ndarray, budget: float) -> float:
    """How far an output moved, over its budget; infinite where rounding has no say."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = float(np.max(np.abs(after.astype("float64") - before.astype("float64")), initial=0.0))
    if math.isnan(apart):
        return math.inf
    if not apart:
        return 0.0
    return apart / budget if budget else math.inf
