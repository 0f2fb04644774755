"""Ports whose results all move by an ulp: which programs, and at which step they are run."""

from dataclasses import replace

import numpy as np
import optax
import pytest
from trained_ports import case_of, linen_port

from equiv.comparison.numeric.difference import FEW_RUNS_MARGIN, limit_budget
from equiv.comparison.numeric.own_rounding import FEW_NUDGES, OPERATION_NUDGES, Doubt, nudge_port
from equiv.comparison.numeric.own_runs import OwnRuns, Side
from equiv.comparison.numeric.rounding import measure_noise
from equiv.comparison.numeric.run_port import CompiledPort, run_on_probe
from equiv.comparison.observation import Comparison
from equiv.comparison.stages import open_case, run_reference, start_compiling, trace_ports
from equiv.comparison.state import CaseState, advance
from equiv.core.output_name import STEP, trained_leaf
from equiv.programs.probes import Probe

KERNEL = trained_leaf("fc/kernel")


def decaying() -> optax.GradientTransformation:
    """A rate that is halved every ten steps."""
    return optax.sgd(optax.exponential_decay(0.1, 10, 0.5))


@pytest.fixture(scope="module")
def observed() -> CaseState:
    case = replace(case_of(linen=linen_port(None)), optimizer=decaying)
    state = replace(open_case(case), candidates=())
    return advance(state, (trace_ports, start_compiling, run_reference))


def trained(port: CompiledPort, probe: Probe) -> np.ndarray:
    return np.asarray(run_on_probe(port, probe).native[KERNEL])


def test_a_moved_port_is_the_port_but_for_rounding(observed: CaseState) -> None:
    compiled, probe = observed.compiled_reference, observed.observed.probes[0]
    moved, own = (trained(port, probe) for port in (nudge_port(compiled, frozenset([STEP]), None), compiled))
    assert not np.array_equal(moved, own)
    np.testing.assert_allclose(moved, own, rtol=1e-5)


def test_only_the_programs_that_are_asked_for_are_run(observed: CaseState) -> None:
    nudged = nudge_port(observed.compiled_reference, frozenset([STEP]), None)
    outputs = run_on_probe(nudged, observed.observed.probes[0]).native
    assert KERNEL in outputs
    assert not [name for name in outputs if not name.program.is_training]


def test_late_steps_are_moved_where_they_are(observed: CaseState) -> None:
    """A schedule reads the counter: what is moved must be the late step, and not the first."""
    compiled, probe = observed.compiled_reference, observed.observed.probes[0]
    steps = observed.built_case.case.steps
    late = replace(probe, late=tuple(range(50, 50 + steps)))
    moved, own = (trained(port, late) for port in (nudge_port(compiled, frozenset([STEP]), None), compiled))
    np.testing.assert_allclose(moved, own, rtol=1e-5)
    assert not np.allclose(own, trained(compiled, probe), rtol=1e-3)


@pytest.mark.parametrize("in_float64", [False, True], ids=["native", "float64"])
def test_runs_are_made_of_what_is_in_doubt_alone(observed: CaseState, in_float64: bool) -> None:
    """Few first, which leave out the allowance for few runs; then all, which give what is measured at once."""
    compiled, probes = observed.compiled_reference, observed.observed.probes
    side = Side(compiled, probes, observed.observed.observed.samples)
    runs, doubts = OwnRuns((side, side), (None, None)), {Doubt("1", in_float64): frozenset([STEP])}
    assert runs.measure(doubts)
    few = runs.known[0]
    found, others = (few.float64, few.native) if in_float64 else (few.native, few.float64)
    assert set(found) == {"1"}
    assert not others
    assert {name.program.is_training for name in found["1"]} == {True}
    assert few.few == {("1", name, in_float64) for name in found["1"]}
    assert runs.measure(doubts)
    every = runs.known[0]
    assert not every.few
    found_all = (every.float64 if in_float64 else every.native)["1"]
    assert all(found["1"][name].largest <= one.largest for name, one in found_all.items())
    nudged = nudge_port(compiled, frozenset([STEP]), compiled)
    given = {"1": run_on_probe(nudged, probes[1])}
    at_once = measure_noise(nudged, given, probes[1:2], OPERATION_NUDGES, again=False)
    assert found_all == (at_once.float64 if in_float64 else at_once.native)["1"]
    assert not runs.measure(doubts)
    assert runs.measure({Doubt("0", in_float64): frozenset([STEP])})
    assert FEW_NUDGES < OPERATION_NUDGES


def test_a_budget_of_few_runs_leaves_room_for_all(observed: CaseState) -> None:
    """That of all runs could be above the largest value, which leaves nothing to compare."""
    side = Side(observed.compiled_reference, observed.observed.probes, observed.observed.observed.samples)
    runs = OwnRuns((side, Side(None, (), {})), (None, None))
    limits = []
    for _ in range(2):
        runs.measure({Doubt("0", False): frozenset([STEP])})
        described = observed.observed.observed
        compared = Comparison(observed.built_case.case, described, described, observed.observed.noise)
        compared = replace(compared, own_rounding=runs.known)
        limits.append(limit_budget(compared, "0", KERNEL, False, 1.0))
        assert limit_budget(compared, "0", KERNEL, True, 1.0) == 1
    assert runs.known[1] is None
    assert limits == [1 / FEW_RUNS_MARGIN, 1]
