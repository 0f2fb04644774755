"""Constants that a port rounds to float32, or to fewer digits, by itself, read as the number that they stand for.

`np.sqrt(8).astype("float32")` is 2.828427 in one port; another one multiplies by `8**-0.5`. In float64 these differ by
half a unit in the last place of float32, which no rounding of float64 explains. So a difference in float64 that float32
could have made is looked at once more: tables take the values that the other port computes, where float32 rounding may
lead from these to them, and other numbers are moved by at most one last digit, as far as that explains the difference.
Outputs then have to agree within the budgets that they have anyway.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from equiv.comparison.numeric.budgets import find_responses, output_budgets
from equiv.comparison.numeric.held_outputs import HeldOutputs, largest_value, output_dtype
from equiv.comparison.numeric.last_digits import fit_amounts
from equiv.comparison.numeric.own_rounding import find_lost
from equiv.comparison.numeric.read_port import Ports, ReadPort, readable_ports
from equiv.comparison.observation import Comparison, Outputs, PortOutputs
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.budget import rounding_growth, rounding_response
from equiv.core.output_name import STEP, TRAINING, OutputName, ProgramName
from equiv.core.results import CheckResult, Finding
from equiv.programs.probes import Probe, ulp

GENEROUS = 16
"""How far a guess of what float32 may round may be off, to be worth an attempt, which then decides."""

MOST_NAMED = 4
"""Number of constants that a remark names."""

ELEMENTS = 1000
"""Number of elements of an output that a fit looks at; the checks then look at all."""


def doubted_constants(comparison: Comparison, checks: Iterable[CheckResult]) -> frozenset[ProgramName]:
    """Name the programs that differ in float64 alone; none where something differs more than float32 rounds."""
    found: set[ProgramName] = set()
    doubted = [one for check in checks for one in check.findings if one.grade in ("refuted", "error")]
    if all(one.precision != "float64" for one in doubted):
        return frozenset()
    for finding in doubted:
        output = finding.output
        if output is None or not _could_be_constants(comparison, finding, output):
            return frozenset()
        found |= {STEP} if output.program == TRAINING or output.after_training else set()
        found |= {output.program} - {TRAINING}
    return frozenset(found)


def _could_be_constants(comparison: Comparison, finding: Finding, output: OutputName) -> bool:
    if finding.grade == "error" or finding.error is None:
        return False
    sides = [side.samples[finding.probe] for side in (comparison.reference, comparison.candidate)]
    lost = find_lost(comparison, finding.probe, output)
    if lost is None:
        # Compared with another leaf, or with a formula: what it is computed from is compared too.
        return all(side.float64 is not None for side in sides)
    dtype = output_dtype(sides[0].native, output)
    if dtype is None or str(dtype) not in INEXACT_DTYPES:
        return False
    known = find_responses(comparison.noise, finding.probe, output, in_float64=False)
    response = rounding_response(max(known.largest, lost), ulp(dtype), largest_value(sides[0].float64 or {}, output))
    growth = rounding_growth(comparison.noise.depth.get(output, 1), comparison.case.budget_factor)
    return finding.error <= GENEROUS * growth * response


AllOutputs = tuple[Mapping[str, Outputs], Mapping[str, Outputs]]
"""Probe to outputs in float64, of the reference and of the candidate."""


ReadAgain = Callable[[Comparison, Probe], Comparison]
"""Gives a comparison on another probe the outputs in float64 of ports that read constants so."""


@dataclass(frozen=True)
class ReadConstants:
    """A comparison with some constants read otherwise.

    Attributes:
        comparison: with the outputs in float64 of ports that read them so.
        note: which constants are read as what.
        again: reads them so on another probe.
    """

    comparison: Comparison
    note: str
    again: ReadAgain


def read_constants(
    comparison: Comparison,
    checks: Iterable[CheckResult],
    names: frozenset[ProgramName],
    ports: Ports,
    probes: tuple[Sequence[Probe], Sequence[Probe]],
) -> ReadConstants | None:
    """Find a reading of both ports' constants that explains a difference in float64; None where there is none to try.

    Args:
        comparison: as it is.
        checks: what they found of it.
        names: of the programs that differ.
        ports: both.
        probes: of both.

    Raises:
        PortError: the changed programs cannot be compiled or run.
    """
    sides = readable_ports(ports, probes, names)
    if all(side.executable is None for side in sides):
        return None
    converted = {leaf for leaf in comparison.known_differences if leaf in comparison.candidate.table.names()}
    found = [one for check in checks for one in check.findings]
    fitted = _arrays_to_fit(comparison, found)
    rows = list(_compared_elements(comparison, found, converted, fitted))
    is_trained = any(one.output.program == TRAINING or one.output.after_training for one in rows)
    unknowns = (*sides[0].unknowns, *sides[1].unknowns)
    # What a port has rounded itself is tried first: of two numbers that do as well, it is named.
    order = sorted(range(len(unknowns)), key=lambda index: not unknowns[index].is_rounded)
    place, first = np.argsort(order).astype(int), len(sides[0].unknowns)

    def outputs(amounts: np.ndarray, known: AllOutputs, calls_alone: bool) -> AllOutputs:
        own = amounts[place]
        ours = sides[0].run(own[:first], known[0], {}, converted, calls_alone)
        return ours, sides[1].run(own[first:], known[1], ours, converted, calls_alone)

    def difference(amounts: np.ndarray) -> list[np.ndarray]:
        read = outputs(amounts, fitted, not is_trained)
        return [one.apart(read) for one in rows]

    fit = fit_amounts(difference, len(unknowns))
    moved = [unknowns[order[one]].describe(fit.amounts[one]) for one in fit.needed]
    dtypes = {*sides[0].table_dtypes, *sides[1].table_dtypes, *(unknowns[order[one]].dtype for one in fit.needed)}
    texts = [*(text for side in sides for text in side.tables), *moved]
    if not texts:
        return None
    both = (comparison.reference, comparison.candidate)
    whole = [{name: one.float64 or {} for name, one in side.samples.items()} for side in both]
    read = outputs(fit.amounts, (whole[0], whole[1]), False)
    reference, candidate = (_with_float64(side, one) for side, one in zip(both, read, strict=True))
    rounded = " and ".join(sorted(dtypes))
    note = f"the same where constants that a port rounds to {rounded} are read to more digits: {_list_readings(texts)}"
    again = partial(_read_on_probe, sides, fit.amounts[place], converted)
    return ReadConstants(replace(comparison, reference=reference, candidate=candidate), note, again)


def _read_on_probe(
    sides: tuple[ReadPort, ReadPort], amounts: np.ndarray, converted: set[str], comparison: Comparison, probe: Probe
) -> Comparison:
    """Run both ports on one more probe, with the amounts of the unknowns of both, the reference's first."""
    known = [{probe.name: side.samples[probe.name].float64} for side in (comparison.reference, comparison.candidate)]
    if any(one[probe.name] is None for one in known):
        return comparison
    first = len(sides[0].unknowns)
    one, other = (replace(side, probes=(probe,)) for side in sides)
    ours = one.run(amounts[:first], _copy(known[0]), {}, converted)
    theirs = other.run(amounts[first:], _copy(known[1]), ours, converted)
    return replace(
        comparison,
        reference=_with_float64(comparison.reference, ours),
        candidate=_with_float64(comparison.candidate, theirs),
    )


def _copy(known: Mapping[str, Outputs | None]) -> Mapping[str, Outputs]:
    return {name: outputs or {} for name, outputs in known.items()}


def _list_readings(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return f"{'; '.join(texts[:MOST_NAMED])}{more}"


def _with_float64(side: PortOutputs, read: Mapping[str, Outputs]) -> PortOutputs:
    return replace(side, samples={name: replace(one, float64=read[name]) for name, one in side.samples.items()})


@dataclass(frozen=True)
class _Elements:
    """Some elements of an output on a probe, and their budgets."""

    probe: str
    output: OutputName
    index: np.ndarray
    budget: np.ndarray

    def apart(self, read: AllOutputs) -> np.ndarray:
        ours, theirs = (side[self.probe][self.output].ravel()[self.index] for side in read)
        with np.errstate(invalid="ignore"):
            apart = (theirs - ours) / self.budget
        parts = [apart.real, apart.imag] if np.iscomplexobj(apart) else [apart]
        return np.nan_to_num(np.concatenate(parts), nan=0.0, posinf=0.0, neginf=0.0)


def _arrays_to_fit(comparison: Comparison, findings: Sequence[Finding]) -> AllOutputs:
    """The outputs in float64 that a fit looks at, on the probes where one is refuted in it.

    Where training is large they are those of calls and gradients, which need no step, or else the small ones of steps.
    """
    compared = {one.output for one in findings if one.precision == "float64"}
    probes = {one.probe: None for one in findings if one.precision == "float64" and one.grade == "refuted"}

    def arrays(outputs: Outputs | None) -> Outputs:
        if not isinstance(outputs, HeldOutputs):
            return outputs or {}
        calls, _ = next(outputs.stream())
        return outputs.held if compared.isdisjoint(calls) else calls

    ours, theirs = (
        {probe: arrays(side.samples[probe].float64) for probe in probes}
        for side in (comparison.reference, comparison.candidate)
    )
    return ours, theirs


def _compared_elements(
    comparison: Comparison, findings: Sequence[Finding], converted: set[str], fitted: AllOutputs
) -> Iterator[_Elements]:
    """Yield the elements that a fit looks at: of every output compared in float64, on probes where one is refuted."""
    compared = {one.output: None for one in findings if one.precision == "float64" and one.output}
    for probe, output in product(fitted[0], compared):
        ours, theirs = (side[probe] for side in fitted)
        if output.leaf in converted or output not in ours or output not in theirs:
            continue
        pair = ours[output], theirs[output]
        if pair[0].shape != pair[1].shape or not pair[0].size:
            continue
        if str(pair[0].dtype) in ("float64", "complex128"):
            budget = output_budgets(comparison, probe, output, pair, in_float64=True).elements.ravel()
            index = np.unique(np.linspace(0, budget.size - 1, ELEMENTS).astype(int))
            yield _Elements(probe, output, index, np.maximum(budget[index], np.finfo("float64").tiny))
