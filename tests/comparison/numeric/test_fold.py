"""Large outputs are compared part by part: the same findings, and no array that nothing needs."""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from equiv.case import Case
from equiv.comparison import stages
from equiv.comparison.numeric import fold, held_outputs, run_port
from equiv.comparison.numeric.held_outputs import HeldOutputs
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import CaseState, advance
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding
from equiv.layers import linear
from equiv.programs import compiled

WIDTH = 200
"""A kernel of this width is larger than `LARGE_OUTPUT`; its bias is not."""


class Net(nn.Module):
    """Two dense layers; the factors between them are equal or not."""

    factor: float = 0.5
    divisor: float = 1.0

    @nn.compact
    def __call__(self, x):
        hidden = jnp.tanh(nn.Dense(WIDTH, name="inner")(x)) * self.factor / self.divisor
        return nn.Dense(3, name="head")(hidden)


CANDIDATES = {"rounded otherwise": Net(1.5, 3.0), "another factor": Net(0.5001), "not finite": Net(0.5, 0.0)}


def checked(candidate: nn.Module) -> CaseState:
    """Compare a candidate by its numbers alone, in both precisions."""
    rows = (linear(name, old=name, new=name) for name in ("inner", "head"))
    case = Case(
        guide="none",
        models={"old": Net, "new": lambda: candidate},
        batch={"x": f"float32[2,{WIDTH}]"},
        layers=tuple(rows),
        optimizer=lambda: optax.adam(1e-3),
        steps=2,
    )
    return advance(open_case(case), (check_structure, trace_ports, start_compiling, run_reference, check_candidates))


def findings_of(state: CaseState) -> Iterator[Finding]:
    """The findings of every check."""
    return (finding for check in state.checks for finding in check.findings)


def is_close(one: float | None, other: float | None) -> bool:
    """Whether two numbers of a finding are the same but for the order of sums."""
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-6))


def shown(finding: Finding) -> tuple[Any, ...]:
    """What a report says of a finding, but for its numbers."""
    return finding.place, finding.grade, finding.probe, finding.index, finding.note, finding.precision


@pytest.mark.parametrize(
    ("name", "fetched"),
    [
        ("rounded otherwise", 0),
        pytest.param("rounded otherwise", fold.FETCHED, marks=pytest.mark.slow),
        ("another factor", 0),
        pytest.param("another factor", fold.FETCHED, marks=pytest.mark.slow),
        pytest.param("not finite", 0, marks=pytest.mark.slow),
    ],
)
def test_folded_outputs_give_the_same_findings(name, fetched, monkeypatch):
    """Whether what is refuted becomes arrays, or is too large for that."""
    whole = list(findings_of(checked(CANDIDATES[name])))
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    monkeypatch.setattr(fold, "FETCHED", fetched)
    folded = list(findings_of(checked(CANDIDATES[name])))
    assert [shown(one) for one in folded] == [shown(one) for one in whole]
    for one, other in zip(folded, whole, strict=True):
        assert is_close(one.error, other.error), one
        assert is_close(one.budget, other.budget), one
        assert (one.spread is None) == (other.spread is None), one


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_an_output_is_large_in_every_precision(dtype):
    """Else one of a float64 run would be computed again, with all others of that run, which then fill the memory."""
    size = held_outputs.LARGE_OUTPUT // 8
    name, larger = OutputName(ProgramName("step"), "small"), OutputName(ProgramName("step"), "large")
    arrays = {name: np.ones(size, jnp.dtype(dtype)), larger: np.ones(size + 1, jnp.dtype(dtype))}
    held, _ = held_outputs.hold_outputs(lambda: iter([(arrays, {})]))
    assert (set(held.held), set(held.large)) == ({name}, {larger})


def held_bytes(outputs: HeldOutputs) -> int:
    """The bytes of the arrays that are kept of a run."""
    return sum(array.nbytes for array in (*outputs.held.values(), *outputs.rerun.values()))


def test_a_large_model_leaves_few_arrays(monkeypatch):
    """After a comparison less is kept than one copy of the parameters; without folding it would be 20 of them."""
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    computed: list[frozenset[Any]] = []
    compute = HeldOutputs._compute
    monkeypatch.setattr(
        HeldOutputs, "_compute", lambda self, names: computed.append(frozenset(names)) or compute(self, names)
    )
    state = checked(CANDIDATES["rounded otherwise"])
    assert state.observed is not None
    samples = state.observed.observed.samples
    parameters = sum(array.nbytes for array in state.observed.probes[0].variables.values())
    assert parameters > held_outputs.LARGE_OUTPUT
    for sample in samples.values():
        assert isinstance(sample.native, HeldOutputs)
        assert held_bytes(sample.native) < parameters
    # Only what is shown becomes arrays: at most three outputs of each check.
    assert all(len(names) <= 9 for names in computed)
    native = samples["0"].native
    assert isinstance(native, HeldOutputs)
    for name, known in native.large.items():
        array = native[name]  # computed again, all in one run
        assert (array.shape, array.dtype) == (known.shape, known.dtype)
        assert float(np.max(np.abs(array))) == known.largest


def test_a_candidate_runs_once_on_each_probe(monkeypatch):
    """In each precision: it is compared as it is held, and what is equal is not computed once more to be shown."""
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    monkeypatch.setattr(stages, "_fetch_shown", lambda comparison, results: comparison)
    runs: list[tuple[str, bool, str]] = []
    stream = run_port.stream_outputs

    def count(executable, probe, own=None):
        runs.append((executable.programs.port, executable.programs.float64, probe.name))
        return stream(executable, probe, own)

    monkeypatch.setattr(run_port, "stream_outputs", count)
    state = checked(CANDIDATES["rounded otherwise"])
    assert all(finding.spread is None for finding in findings_of(state) if "kernel" in finding.place)
    mine = [one for one in runs if one[0] == "new"]
    assert len(mine) == len(set(mine)) > 2
