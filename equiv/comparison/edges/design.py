"""Design the edge probes of a case: beyond and at the thresholds of its ports, at zeros and ties, late in training."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from equiv.comparison.edges.aim import aim_probes
from equiv.comparison.edges.edge_probes import (
    ONE_NUMBER,
    exact_numbers,
    exact_values,
    late_probes,
    small_gradients,
    small_inputs,
    with_whole_numbers,
    zero_inputs,
)
from equiv.comparison.edges.run_edges import observe_port
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import EdgeProbe
from equiv.comparison.state import CaseState
from equiv.core.leaves import LeafTable
from equiv.programs.counters import counter_literals
from equiv.programs.exercise import Observed, integer_literals
from equiv.programs.probes import Probe
from equiv.programs.prover.numbered_port import all_programs

DRAW_TAILS = (0.0, 1.0)
"""The ends of what a draw can be."""


def design_edges(
    state: CaseState, ports: Mapping[str, CompiledPort], compared: Collection[bool] = (False, True)
) -> list[EdgeProbe]:
    """Make the edge probes of a case: only those that compare something.

    Args:
        state: the case; its reference has run.
        ports: port to its compiled programs, the reference's among them.
        compared: what is compared: train steps (True), calls and gradients (False).

    Raises:
        PortError: a port cannot be run on a probe that is aimed at one of its thresholds.
    """
    assert state.observed is not None, "run_reference comes before"
    probe, table, built_case = state.observed.probes[0], ports[state.reference].table, state.built_case
    known = {name: state.exercised.get(name, {}) for name in ports}
    aimed = aim_probes(probe, table, known, {name: partial(observe_port, one) for name, one in ports.items()}, compared)
    edges = [EdgeProbe(one, not site.training, site.training, overflows=site.kind == "overflow") for one, site in aimed]
    if False in compared:
        edges += _call_edges(probe, table, ports, known)
    programs = [part for one in ports.values() for part in all_programs(one.traced.programs)]
    if any(part.draws for part in programs):
        tails = replace(probe, name="tails of draws", tails=_tails(list(known.values())))
        edges.append(EdgeProbe(tails, False in compared, True in compared))
    if True in compared:
        edges += _training_edges(probe, table, ports, built_case.case.steps)
    whole = {one for port in ports.values() for part in port.traced.programs.parts for one in integer_literals(part)}
    return with_whole_numbers(edges, built_case.entries, whole)


def _call_edges(
    probe: Probe, table: LeafTable, ports: Mapping[str, CompiledPort], known: Mapping[str, Observed]
) -> Iterator[EdgeProbe]:
    """Make the edge probes of calls and gradients that need no search."""
    yield EdgeProbe(small_inputs(probe, table))
    if any(array.dtype.kind in "iu" for array in probe.free_batches.values()):
        yield EdgeProbe(replace(probe, name=ONE_NUMBER))
    yield from (EdgeProbe(zero_inputs(probe, table, kernels), exact=True) for kernels in (False, True))
    bounds = [{site.bound for site in observed if site.kind == "threshold"} for observed in known.values()]
    every, shared = set[float]().union(*bounds), set.intersection(*bounds)
    if every - {0.0}:
        yield EdgeProbe(exact_values(probe, table, exact_numbers(every, shared)), exact=True, guarded=True)


def _training_edges(
    probe: Probe, table: LeafTable, ports: Mapping[str, CompiledPort], steps: int
) -> Iterator[EdgeProbe]:
    """Make the edge probes of training: where its counters are late, and where its gradients are small."""
    trained = {name: step for name, one in ports.items() if (step := one.traced.programs.step) is not None}
    if any(name.kind == "optimizer" and name.leaf for step in trained.values() for name in step.inputs):
        yield EdgeProbe(small_gradients(probe, table), calls=False, training=True)
    counters = {name: found for name in trained if (found := ports[name].native.counters) is not None}
    if counters:
        met = {name: counter_literals(trained[name], found.names) for name, found in counters.items()}
        every = frozenset[int]().union(*met.values())
        # Each port's own counters say after how many steps they are at what either port compares with.
        near = [number + move for number in sorted(every) for move in (-1, 0)]
        near += [step for found in counters.values() for number in sorted(every) for step in found.around(number)]
        rounds = max(found.round for found in counters.values())
        yield from late_probes(probe, near, steps, rounds)


def _tails(exercised: Sequence[Observed]) -> tuple[float, ...]:
    """The ends of a draw, and a number between each two rates that ports compare one with."""
    rates = sorted(
        {site.bound for seen in exercised for site in seen if site.kind == "threshold" and 0 < site.bound < 1}
    )
    between = [(one + other) / 2 for one, other in pairwise(rates)]
    return (*DRAW_TAILS, *between)
