"""Aim a probe at a threshold that ordinary values do not reach: scale it until some of its values are just beyond.

Programs are run natively to see how far their values come; a few runs suffice, as most values grow like a power of what
is scaled.
"""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from equiv.comparison.edges.edge_probes import NEXT_TO, scale_probe
from equiv.core.leaves import LeafTable
from equiv.programs.exercise import Observed, Site, exercised_in_part
from equiv.programs.probes import Probe

MOST_AIMED = 8
"""Most probes that are aimed at thresholds."""

MOST_RUNS = 5
"""Most runs to aim one probe."""

FIRST_FACTOR = 4.0
"""By how much a probe is scaled to see how the values at a threshold grow."""

MOST_APART = 2.0**16
"""An extreme value this many times smaller than the other one is rounding: `x - max(x)` is above 0 by that only."""

LARGEST_FACTOR = 1e8
"""Beyond this factor, up or down, a probe says nothing about a model."""

ObserveProbe = Callable[[Probe], Observed]
"""Runs a port on a probe, for what it exercises."""


@dataclass(frozen=True)
class Target:
    """A threshold, and how far the values of a probe should come.

    Attributes:
        port: that has it.
        site: where it is.
        values: the extreme value that is wanted, and between which two it is near enough.
        upper: whether the largest value is to come there; else the smallest.
    """

    port: str
    site: Site
    values: tuple[float, float, float]
    upper: bool

    def extreme(self, observed: Observed) -> float:
        """The value of a run that is to come there; NaN where the place was not reached."""
        statistics = observed.get(self.site)
        return math.nan if statistics is None else _extreme(statistics, self.upper)

    def is_met(self, observed: Observed) -> bool:
        """Whether a run has values on both sides, and none that is too far beyond."""
        if self.site not in observed or exercised_in_part(self.site, observed[self.site]):
            return False
        _, one, other = self.values
        return min(one, other) <= self.extreme(observed) <= max(one, other)


def list_targets(exercised: Mapping[str, Observed]) -> Iterator[Target]:
    """List the thresholds that scaling could bring values to.

    Those that no run had values on both sides of, and those that only one port has, which may be near another of the
    other port's.

    Args:
        exercised: port to what all runs exercised.
    """
    bounds = {port: {site.bound for site in observed if _is_threshold(site)} for port, observed in exercised.items()}
    for training in (False, True):
        for port, observed in exercised.items():
            theirs = set[float]().union(*(known for other, known in bounds.items() if other != port))
            for site, statistics in observed.items():
                if _is_threshold(site) and site.training == training and site.bound != 0 and not site.drawn:
                    yield from _targets_at(port, site, statistics, theirs - bounds[port], site.bound in theirs)


def _targets_at(
    port: str, site: Site, statistics: np.ndarray, foreign: Iterable[float], shared: bool
) -> Iterator[Target]:
    low, high = _extreme(statistics, upper=False), _extreme(statistics, upper=True)
    if exercised_in_part(site, statistics):
        upper = high <= site.bound
        # Values above a negative threshold have to grow, those above a positive one have to shrink.
        grow = upper == (site.bound > 0)
    elif shared:
        return
    else:
        upper, grow = site.bound > 0, True
    if (high if upper else low) * site.bound > 0:
        yield Target(port, site, _beyond(site.bound, grow, foreign), upper)


def _extreme(statistics: np.ndarray, upper: bool) -> float:
    """The largest or smallest value seen at a place; NaN where it is only rounding of the other one."""
    low, high = (float(one) for one in statistics[:2])
    value, other = (high, low) if upper else (low, high)
    return math.nan if abs(value) * MOST_APART < abs(other) else value


def _is_threshold(site: Site) -> bool:
    return site.kind in ("threshold", "overflow")


def _beyond(bound: float, grow: bool, foreign: Iterable[float]) -> tuple[float, float, float]:
    """A value just beyond a threshold, and the range in which it is near enough: before any threshold that only another
    port has."""
    sign, size = math.copysign(1.0, bound), abs(bound)
    far = size * NEXT_TO**2 if grow else size / NEXT_TO**2
    others = [abs(one) for one in foreign if one * sign > 0]
    between = [one for one in others if (size < one < far if grow else far < one < size)]
    far = (min(between) if grow else max(between)) if between else far
    return sign * math.sqrt(size * far), bound, sign * far


def aim_probes(
    probe: Probe,
    table: LeafTable,
    exercised: Mapping[str, Observed],
    observe: Mapping[str, ObserveProbe],
    compared: Container[bool] = (False, True),
) -> list[tuple[Probe, Site]]:
    """Make probes that have values just beyond the thresholds that no other probe reaches.

    Args:
        probe: the probe that is scaled.
        table: the leaf table of the reference.
        exercised: port to what all other probes exercised.
        observe: port to what runs it.
        compared: which thresholds are of interest: those in train steps (True), or in calls and gradients (False).

    Returns:
        Each probe, and the place that it is made for.
    """
    found: list[tuple[Probe, Site]] = []
    met: set[tuple[float, bool]] = set()
    for target in list_targets(exercised):
        if len(found) == MOST_AIMED:
            break
        same = (target.site.bound, target.upper)
        if same in met or target.site.training not in compared:
            continue
        for inputs in (True, False):
            if (factor := _find_factor(target, probe, table, observe[target.port], inputs)) is not None:
                met.add(same)
                name = f"around {target.site.bound:.6g}"
                found.append((replace(scale_probe(probe, table, factor, inputs), name=name), target.site))
                break
    return found


def _find_factor(target: Target, probe: Probe, table: LeafTable, observe: ObserveProbe, inputs: bool) -> float | None:
    """Find the factor on inputs, or on parameters, that meets a target; None where none does."""
    tried: list[tuple[float, float]] = []  # logarithms of factors, and of the values that they lead to
    factor = 1.0
    for run in range(MOST_RUNS + 1):
        observed = observe(scale_probe(probe, table, factor, inputs))
        if run and target.is_met(observed):
            return factor
        value = target.extreme(observed)
        if not math.isfinite(value) or value * target.values[0] <= 0:
            return None
        tried.append((math.log(factor), math.log(abs(value))))
        following = _next_factor(tried, math.log(abs(target.values[0])))
        if following is None:
            return None
        factor = following
    return None


def _next_factor(tried: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """The factor that follows from the last two by a power law; None where values do not follow it."""
    if len(tried) == 1:
        # Of values that grow in proportion this is the right one; they are known only afterwards.
        guess = wanted - tried[0][1]
        return math.exp(guess) if abs(guess) <= math.log(LARGEST_FACTOR) else FIRST_FACTOR
    (before, one), (now, other) = tried[-2:]
    power = (other - one) / (now - before) if now != before else 0.0
    if power < 1e-3:
        return None
    log = now + (wanted - other) / power
    return math.exp(log) if abs(log) <= math.log(LARGEST_FACTOR) else None
