"""Do two ports agree over the whole range of a narrow dtype? Inputs are scaled until values on the way leave it.

Each port is run as it is and with the range of float32 (`equiv.programs.range_limits`). With that range both round as
before, so what separates them then is rounding and is granted; what separates them beyond that is the range.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from equiv.comparison.numeric.arrays import element_text
from equiv.comparison.numeric.blocks import element_responses, measure_blocks
from equiv.comparison.numeric.budgets import limit_finite
from equiv.comparison.numeric.range_run import RangeExecutable, RangeRun
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import rounding_growth
from equiv.core.output_name import STEP, TRAINING, OutputName
from equiv.core.results import Finding
from equiv.programs.probes import Probe, perturb_by_ulp, widen_array
from equiv.programs.range_limits import FloatRange, float_range

RANGE_PROBE = "range"
"""Name of the probe in findings."""

MOST_LEAVES = 12
"""Leaves that are scaled one by one; more are scaled in so many groups of neighbours."""

NUDGES = 2
"""Number of runs with every input moved by an ulp, as for the budgets of other probes."""

STEP_FACTOR = math.sqrt(2)
"""Inputs are scaled by powers of it, and a difference has to be there at two of them in a row.

Which of `(a + b) + c` and `a + (b + c)` overflows first is decided by signs and by rounding, within a factor of two.
"""

SIGN_PATTERNS = 4
"""Number of runs with signs of the scaled inputs drawn anew, in which the port that stays in the range has to do so."""


@dataclass(frozen=True)
class ScaledInputs:
    """Inputs that are scaled together.

    Attributes:
        title: what they are, in words.
        variables: canonical leaves.
        batches: batch entries.
        cotangents: whether the cotangents of gradients are scaled too.
    """

    title: str
    variables: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    cotangents: bool = False

    def flip(self, probe: Probe, seed: int) -> Probe:
        """The probe with the signs of these inputs drawn anew."""
        rng = np.random.default_rng((probe.seed, seed))
        variables, batches = (
            {name: part[name] * rng.choice([-1, 1], part[name].shape).astype(part[name].dtype) for name in names}
            for part, names in ((probe.variables, self.variables), (probe.batches, self.batches))
        )
        return replace(probe, variables={**probe.variables, **variables}, batches={**probe.batches, **batches})

    def arrays(self, probe: Probe) -> list[np.ndarray]:
        """These inputs in a probe."""
        return [probe.variables[name] for name in self.variables] + [probe.batches[name] for name in self.batches]

    def largest(self, probe: Probe) -> float:
        """The largest magnitude of these inputs in a probe; that of a cotangent is about one."""
        return max((_largest(array) for array in self.arrays(probe)), default=1.0)

    def scale(self, probe: Probe, factor: float) -> tuple[Probe, float]:
        """The probe with these inputs times a factor, and the factor of the cotangents."""
        scaled = {name: _times(probe.variables[name], factor) for name in self.variables}
        batches = {name: _times(probe.batches[name], factor) for name in self.batches}
        changed = replace(
            probe, variables={**probe.variables, **scaled}, batches={**probe.batches, **batches}, name=RANGE_PROBE
        )
        return changed, factor if self.cotangents else 1.0


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(widen_array(array))))


def _times(array: np.ndarray, factor: float) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return (widen_array(array) * factor).astype(array.dtype)


def scaled_inputs(probe: Probe, gradients: bool) -> Iterator[ScaledInputs]:
    """Yield what is scaled: the batch, all parameters and state, both, cotangents, and each leaf."""
    leaves, entries = (
        tuple(name for name, array in part.items() if str(array.dtype) in FLOAT_DTYPES and np.any(array))
        for part in (probe.variables, probe.free_batches)
    )
    if entries:
        yield ScaledInputs(" and ".join(entries), batches=entries)
    if gradients:
        yield ScaledInputs("cotangents", cotangents=True)
    if leaves:
        yield ScaledInputs("all leaves", leaves)
    if leaves and entries:
        yield ScaledInputs(f"{' and '.join(entries)} and all leaves", leaves, entries)
    size = -(-len(leaves) // MOST_LEAVES)
    for start in range(0, len(leaves), size or 1):
        group = leaves[start : start + size]
        yield ScaledInputs(" and ".join(group), group)


def scale_exponents(group: ScaledInputs, probe: Probe, limits: Sequence[FloatRange]) -> tuple[list[int], list[int]]:
    """The powers of `STEP_FACTOR` by which inputs are scaled: up until they leave the range, and down.

    An input of the narrow dtype itself stays finite.
    """
    largest = group.largest(probe)
    spare = min(
        (float_range(str(one.dtype)).largest / _largest(one) for one in group.arrays(probe)),
        default=min(one.largest for one in limits),
    )
    top = min(STEP_FACTOR * max(one.largest for one in limits) / largest, spare)
    bottom = min(one.smallest for one in limits) / (STEP_FACTOR * largest)
    upper, lower = (math.floor(math.log(one, STEP_FACTOR)) for one in (top, bottom))
    return list(range(1, upper + 1)), list(range(-1, lower - 1, -1))


@dataclass(frozen=True)
class RangeComparison:
    """Two ports compiled for the comparison over a range.

    Attributes:
        sides: the reference and the candidate.
        probes: those of the reference and of the candidate, with the same values where they share inputs.
        outputs: to compare.
        limits: the narrow ranges in which either computes.
        depth: output to the number of rounded operations in a row.
        factor: the case's factor on every budget.
    """

    sides: tuple[RangeExecutable, RangeExecutable]
    probes: tuple[Probe, Probe]
    outputs: tuple[OutputName, ...]
    limits: tuple[FloatRange, ...]
    depth: Mapping[OutputName, int]
    factor: float = 1.0

    @property
    def coarsest(self) -> FloatRange:
        """The range of the dtype with the fewest digits."""
        return max(self.limits, key=lambda one: one.ulp)

    def growth(self, output: OutputName) -> float:
        """How many times its response the budget of an output is."""
        return rounding_growth(self.depth.get(output, 1), self.factor)

    def run(self, group: ScaledInputs, factor: float) -> "ScaleRun":
        """Run both ports with inputs scaled."""
        left, right = self.sides
        runs = left.run(*group.scale(self.probes[0], factor)), right.run(*group.scale(self.probes[1], factor))
        return ScaleRun(self, group, factor, runs)


@dataclass(frozen=True)
class ScaleRun:
    """Both ports run with inputs scaled.

    Attributes:
        comparison: of the two ports.
        group: what is scaled.
        factor: how much.
        runs: of the reference and of the candidate.
    """

    comparison: RangeComparison
    group: ScaledInputs
    factor: float
    runs: tuple[RangeRun, RangeRun]

    @cached_property
    def responses(self) -> list[dict[OutputName, np.ndarray]]:
        """How far outputs move, with the range of float32, when each input moves by an ulp of the coarsest dtype."""
        found = []
        for side, probe, known in zip(self.comparison.sides, self.comparison.probes, self.runs, strict=True):
            scaled, cotangents = self.group.scale(probe, self.factor)
            nudged = (perturb_by_ulp(scaled, seed, self.comparison.coarsest.dtype) for seed in range(1, NUDGES + 1))
            moved = [side.run(one, cotangents).wide for one in nudged]
            wide = {output: known.wide[output] for output in self.comparison.outputs}
            found.append(
                {one: element_responses(measure_blocks(base, [run[one] for run in moved]), base)
                 for one, base in wide.items()}
            )  # fmt: skip
        return found

    @property
    def leaves_range(self) -> bool:
        """Whether a value leaves the range of its dtype, as far as is seen."""
        return any(site.is_left(*seen) for run in self.runs for (_, site), *seen in run.sites)

    @property
    def overflows(self) -> bool:
        """Whether a value is beyond the largest number of its dtype, as far as is seen."""
        return any(largest > site.range.largest for run in self.runs for (_, site), largest, _ in run.sites)

    def has_finite(self, output: OutputName) -> bool:
        """Whether either port has a finite value in an output."""
        return any(bool(np.any(np.isfinite(widen_array(run.native[output])))) for run in self.runs)

    def budgets(self, output: OutputName, measured: bool) -> np.ndarray:
        """What rounding explains of every element; where responses are not `measured`, at the least that much."""
        limits = self.comparison.coarsest
        sizes = np.maximum(*(_finite_size(run.wide[output]) for run in self.runs))
        moved = np.maximum(limits.ulp * sizes, limits.smallest)
        for known in self.responses if measured else ():
            moved = np.maximum(moved, known[output])
        return limit_finite(self.comparison.growth(output), moved)

    def excess(self, output: OutputName, measured: bool) -> np.ndarray:
        """How far the ports are apart beyond what they are with the range of float32, over the budget."""
        apart, granted = (_distance(*(getattr(run, form)[output] for run in self.runs)) for form in ("native", "wide"))
        with np.errstate(invalid="ignore"):
            beyond = np.where(np.isinf(granted), 0.0, np.maximum(apart - granted, 0.0))
        return beyond / self.budgets(output, measured)

    def lost(self, output: OutputName, measured: bool) -> list[np.ndarray]:
        """How far each port is from itself with the range of float32, over the budget."""
        budgets = self.budgets(output, measured)
        return [_distance(run.native[output], run.wide[output]) / budgets for run in self.runs]


def _differing(lower: ScaleRun, upper: ScaleRun, output: OutputName, usual: float, measured: bool) -> list[np.ndarray]:
    """The elements of an output that differ at two scales in a row, as the reference, or the candidate, left the range.

    The other port stays in it at these elements, and overflows at no element of the output.
    """
    excess = np.minimum(lower.excess(output, measured), upper.excess(output, measured))
    pairs = zip(lower.lost(output, measured), upper.lost(output, measured), strict=True)
    lost = [np.maximum(*pair) for pair in pairs]
    stays = [(one <= usual) & ~np.any(np.isinf(one)) for one in lost]
    return [(excess > usual) & other for other in (stays[1], stays[0])]


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far elements are apart: infinitely where only one is finite, not at all where neither is."""
    left, right = widen_array(one), widen_array(other)
    finite = np.isfinite(left), np.isfinite(right)
    with np.errstate(invalid="ignore", over="ignore"):
        both = np.abs(left - right)
    return np.where(finite[0] & finite[1], both, np.where(finite[0] == finite[1], 0.0, np.inf))


def _finite_size(array: np.ndarray) -> np.ndarray:
    wide = np.abs(widen_array(array))
    return np.where(np.isfinite(wide), wide, 0.0)


def compare_ranges(comparison: RangeComparison) -> tuple[dict[OutputName, Finding], tuple[str, ...]]:
    """Compare two ports over the range of their dtypes.

    Returns:
        A refuted finding for every output that differs, at the first scale where it does; and what was scaled.
    """
    tried: list[str] = []
    findings: dict[OutputName, Finding] = {}
    groups = list(scaled_inputs(comparison.probes[0], comparison.sides[0].has_gradients))
    base = comparison.run(groups[0], 1.0)
    usual = _measure_usual(base)
    for group in groups:
        for exponents in scale_exponents(group, comparison.probes[0], comparison.limits):
            before = base
            for exponent in exponents:
                now = comparison.run(group, STEP_FACTOR**exponent)
                open_outputs = [output for output in comparison.outputs if output not in findings]
                findings |= _judge(before, now, {output: usual[output] for output in open_outputs})
                before = now
                if not any(now.has_finite(output) for output in open_outputs):
                    break
        tried.append(group.title)
    return findings, tuple(tried)


def _measure_usual(base: ScaleRun) -> dict[OutputName, float]:
    """What is apart, over its budget, on inputs as they are and without an overflow: how the forms were compiled."""
    worst = {output: float(np.max(base.excess(output, True), initial=0.0)) for output in base.comparison.outputs}
    return {output: 1.0 if base.overflows or np.isinf(one) else max(1.0, one) for output, one in worst.items()}


def _judge(before: ScaleRun, now: ScaleRun, usual: Mapping[OutputName, float]) -> dict[OutputName, Finding]:
    """The outputs that differ at two scales, with their limits on the excess; findings are of the first of them."""
    findings = {}
    for output, limit in usual.items():
        # The second look costs some runs.
        if not any(map(np.any, _differing(before, now, output, limit, False))):
            continue
        shown = now if before.factor == 1 else before
        for number, differing in enumerate(_differing(before, now, output, limit, True)):
            excess = np.where(differing, shown.excess(output, True), 0.0)
            seen = shown.leaves_range or np.any(np.isinf(excess))
            if np.any(differing) and seen and _stays_finite(now, output, 1 - number):
                findings[output] = _make_finding(shown, output, excess, number)
    return findings


def _stays_finite(scaled: ScaleRun, output: OutputName, number: int) -> bool:
    """Whether a port does not overflow in an output, whatever the signs of the scaled inputs."""
    comparison, group = scaled.comparison, scaled.group
    side, probe = comparison.sides[number], comparison.probes[number]
    flipped = (side.run(*group.scale(group.flip(probe, seed), scaled.factor)) for seed in range(SIGN_PATTERNS))
    return not any(np.any(np.isinf(_distance(run.native[output], run.wide[output]))) for run in flipped)


def _make_finding(shown: ScaleRun, output: OutputName, excess: np.ndarray, number: int) -> Finding:
    """The finding of the element that is furthest over its budget; `number` is that of the port that left the range."""
    index = tuple(int(axis) for axis in np.unravel_index(int(np.argmax(excess)), excess.shape))
    values = [run.native[output][index] for run in shown.runs]
    ratio = float(excess[index])
    error = float(_distance(*values)) if np.isfinite(ratio) else None
    counts = [int(np.sum(~np.isfinite(widen_array(run.native[output])))) for run in shown.runs]
    return Finding(
        str(output),
        "refuted",
        error=error,
        budget=None if error is None else error / ratio,
        ratio=None if error is None else ratio,
        precision="native",
        reference=element_text(values[0]),
        candidate=element_text(values[1]),
        index=(*((0,) if output.program == TRAINING else ()), *index),
        probe=RANGE_PROBE,
        nonfinite=(counts[0], counts[1]),
        note=_describe(shown, output, number),
        output=output,
    )


def _describe(shown: ScaleRun, output: OutputName, number: int) -> str:
    """Say which port leaves which range in which operation, and from which inputs on."""
    side, other = shown.comparison.sides[number], shown.comparison.sides[1 - number].traced.port.name
    port, grown = side.traced.port.name, shown.factor > 1
    program = STEP if output.program == TRAINING else output.program
    needed = side.sites_of(output.of(program))
    # Where the other port leaves the range too, it does so without harm.
    needed -= {site for (_, site), *seen in shown.runs[1 - number].sites if site.is_left(*seen)}
    sites = [(site, *seen) for (name, site), *seen in shown.runs[number].sites if name == program and site in needed]
    over = next(((site, largest) for site, largest, _ in sites if largest > site.range.largest), None)
    under = next(((site, smallest) for site, _, smallest in sites if smallest < site.range.smallest), None)
    size = shown.group.largest(shown.comparison.probes[0]) * shown.factor
    inputs = f"with {shown.group.title} {'up' if grown else 'down'} to {size:.3g}"
    if over and (grown or not under):
        site, value = over
        what = f"gives {value:.3g}, but {site.range.dtype} ends at {site.range.largest:.6g}: {port} overflows"
    elif under:
        site, value = under
        smallest = f"{site.range.smallest:.2g}"
        what = f"gives {value:.3g}, but {site.range.dtype} loses digits below {smallest}: {port} underflows"
    else:
        return f"{inputs} {port} leaves the range of {shown.comparison.coarsest.dtype}, {other} does not"
    return f"{inputs} {site.primitive}{f' at {site.where}' if site.where else ''} {what}, {other} does not"
