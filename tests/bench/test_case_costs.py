"""What a case costs, measured for real on tiny programs: everything is there, and nothing is timed that must not be."""

import math
import os
import re
import subprocess
import sys
from functools import cache

import helpers
import pytest

from equiv.backends.user_programs import PROGRAMS
from equiv.bench.case_costs import measure_costs, refuse_under_xdist
from equiv.bench.stages import STAGES
from equiv.core.timings import PHASES, TOO_FEW, CaseCosts
from equiv.errors import NotRun
from equiv.programs.built_case import build_case

pytestmark = pytest.mark.usefixtures("serial")

WAYS = {("haiku", "jax.jit"), ("linen", "jax.jit"), ("nnx", "nnx.jit"), ("nnx", "split + jax.jit")}


@cache
def costs() -> CaseCosts:
    """The smallest case of the suite, each thing measured as seldom as may be."""
    return measure_costs(helpers.workshop_of("counter"), {}, 0.0)


def test_every_phase_of_every_program_and_call_is_positive() -> None:
    """Nothing is left out in silence: every way to call a port is there."""
    found = {(one.backend, one.runner, one.program, one.phase) for one in costs().timings}
    assert found == {(*way, program, phase) for way in WAYS for program in PROGRAMS for phase in PHASES}
    for one in costs().timings:
        assert one.rounds >= 1
        assert one.calls >= one.rounds
        assert all(map(math.isfinite, (one.p50, one.p90, one.p99)))
        assert one.p50 <= one.p90 <= one.p99
        assert one.phase in ("dispatch", "device") or one.p50 > 0


def test_every_candidate_has_a_ratio_and_the_control_too() -> None:
    """The reference itself has none; a difference of two times may be none."""
    for one in costs().timings:
        if one.phase in ("dispatch", "device"):
            continue
        assert (one.ratio is None) == (one.backend == "haiku")
        assert one.control is not None
        assert (one.back_to_back is not None) == (one.phase == "step")


def test_what_was_measured_once_claims_nothing() -> None:
    """The control of a single round excludes 1 too."""
    once = [one for one in costs().timings if one.phase in STAGES and one.ratio is not None]
    assert {one.rounds for one in once} == {1}
    assert {one.claim for one in once} == {TOO_FEW}


def test_every_program_is_counted() -> None:
    """Equations and instructions always, and what XLA says of it on this platform."""
    assert {(one.backend, one.runner, one.program) for one in costs().programs} == {
        (*way, program) for way in WAYS for program in PROGRAMS
    }
    for one in costs().programs:
        assert one.equations > 0
        assert one.instructions > one.equations
        assert one.flops is not None
        assert one.bytes is not None
        assert one.peak_bytes is not None
        assert min(one.flops, one.bytes, one.peak_bytes) > 0
        assert one.retraces == 0


def test_linen_compiles_to_haikus_program_and_nnx_copies_its_outputs() -> None:
    """Between the first two any gap is the host's; `nnx.jit` returns the whole state, parameters included."""
    found = {(one.backend, one.program): one for one in costs().programs if one.runner != "split + jax.jit"}
    for program in PROGRAMS:
        assert found["haiku", program].identical
        assert found["linen", program].identical
        assert found["linen", program].differs == ""
        assert not found["nnx", program].identical
    assert "copy +1" in found["nnx", "forward"].differs
    assert "copy" not in found["nnx", "train step"].differs


def test_it_is_said_where_a_call_of_nnx_jit_goes() -> None:
    """Modules are split before the call into JAX and merged after it."""
    parts = {(one.program, one.part): one.seconds for one in costs().parts}
    names = ("modules to arrays", "jax.jit dispatch", "compiled program", "arrays to modules")
    assert set(parts) == {(program, name) for program in PROGRAMS for name in names}
    assert {one.runner for one in costs().parts} == {"nnx.jit"}
    for program in PROGRAMS:
        assert parts[program, "modules to arrays"] > 0
        assert parts[program, "arrays to modules"] > 0


def test_the_load_of_the_machine_stands_beside_the_figures() -> None:
    """Before and after, where the system reports it."""
    assert len(costs().load) == (2 if hasattr(os, "getloadavg") else 0)


UNBUILT = ("self.counter = Counter(", "assert not rngs, 'planted'\n            self.counter = Counter(")


def test_what_cannot_be_timed_is_left_out_with_its_reason() -> None:
    """What breaks in one leaves the others alone."""
    workshop = build_case(helpers.patched("counter", UNBUILT))
    found = measure_costs(workshop, {"linen": "different: because"}, 0.0)
    assert {one.backend for one in (*found.timings, *found.programs)} == {"haiku"}
    assert found.parts == ()
    assert found.withheld["linen"] == "different: because"
    assert re.match(r"nnx: building the model raised AssertionError: planted\. Fix ", found.withheld["nnx"])


def test_the_interval_library_is_imported_only_where_something_is_timed() -> None:
    """It would double the start of the command line."""
    code = "import sys, equiv.frontends.cli.main, equiv.bench.case_costs; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_timing_is_refused_in_a_worker_of_xdist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would time each other."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    with pytest.raises(
        NotRun, match=r"timing: the pytest-xdist worker gw3 shares the machine .*\. Run it without -n\."
    ):
        refuse_under_xdist()
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    refuse_under_xdist()
