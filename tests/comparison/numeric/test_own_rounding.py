"""Ports whose results all move by an ulp: which programs, and at which step they are run."""

from dataclasses import replace

import numpy as np
import optax
import pytest
from trained_ports import case_of, linen_port

from equiv.comparison.numeric.own_rounding import nudge_port
from equiv.comparison.numeric.run_port import CompiledPort, run_on_probe
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
