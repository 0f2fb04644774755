"""The rate of the default train step is lowered where training blows up with it, and only there."""

import re
from dataclasses import asdict, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import just
from trained_ports import case_of, linen_port, loaded_case, nnx_port

from equiv.case import Case
from equiv.comparison import default_rate
from equiv.comparison.default_rate import bearable_rate, lower_default_rate
from equiv.comparison.numeric import held_outputs, run_port
from equiv.comparison.observation import PortOutputs, RoundingNoise, Sample
from equiv.comparison.pipeline import run_case
from equiv.comparison.reference_probes import start_reference
from equiv.comparison.stages import check_structure, open_case, prove_ports, start_compiling, trace_ports
from equiv.comparison.state import Reference, advance
from equiv.core.case_files import LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.core.output_name import BEGIN, STEP, ProgramName, trained_leaf
from equiv.core.results import CaseResult
from equiv.layers import batch_norm, linear
from equiv.programs import compiled, traced_port
from equiv.programs.probes import Probe
from equiv.programs.prover.numbered_port import NumberedPort


def remarks_of(result: CaseResult) -> tuple[str, ...]:
    """The remarks of the check of training."""
    return next(check.remarks for check in result.checks if check.check == "train")


BLOWING_UP = {
    "large outputs": lambda outputs, _: ((30 * outputs) ** 2).mean(),
    "a large factor": lambda outputs, _: 1e4 * (outputs**2).mean(),
    "a sum over everything": lambda outputs, _: 1e3 * (outputs**2).sum(),
    "a fourth power": lambda outputs, _: ((2 * outputs) ** 4).mean(),
    "an exponential": lambda outputs, _: jnp.exp(3 * outputs).mean(),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("case_loss", BLOWING_UP)
def test_a_default_rate_that_blows_up_is_lowered(case_loss):
    case = replace(case_of(linen=linen_port(None), nnx=nnx_port(None)), loss=BLOWING_UP[case_loss])
    result = run_case(LoadedCase("blown up", "", case))
    assert result.verdicts == {"nnx": "same"}
    (remark,) = remarks_of(result)
    assert re.search(r"optax\.sgd\(.*\) on the case's loss; its rate is lowered from 0\.1, with which", remark)


def test_only_the_default_rate_is_lowered():
    """The optimizer of the case and its own train steps are what its author wants to be compared."""
    case = replace(case_of(linen=linen_port(None), nnx=nnx_port(None)), optimizer=lambda: optax.sgd(10.0), steps=2)
    (remark,) = remarks_of(run_case(LoadedCase("as given", "", case)))
    assert "lowered" not in remark
    own = loaded_case(linen=linen_port(optax.sgd(10.0)), nnx=nnx_port(optax.sgd(10.0)))
    assert remarks_of(run_case(own)) == ()


class Normed(nn.Module):
    """A dense layer between a batch norm, which has state, and dropout, which draws."""

    width: int = 5

    @nn.compact
    def __call__(self, x, is_training: bool):
        hidden = nn.BatchNorm(use_running_average=not is_training, name="norm")(nn.Dense(self.width, name="fc")(x))
        return nn.Dropout(0.5, deterministic=not is_training)(jax.nn.relu(hidden))


class Squared(Normed):
    """The same, in other operations."""

    @nn.compact
    def __call__(self, x, is_training: bool):
        hidden = nn.BatchNorm(use_running_average=not is_training, name="norm")(nn.Dense(self.width, name="fc")(x))
        return nn.Dropout(0.5, deterministic=not is_training)(jnp.where(hidden > 0, hidden, 0) * 0.3 / 0.3)


class Swayed(Normed):
    """Another momentum."""

    @nn.compact
    def __call__(self, x, is_training: bool):
        norm = nn.BatchNorm(use_running_average=not is_training, momentum=0.98, name="norm")
        return nn.Dropout(0.5, deterministic=not is_training)(jax.nn.relu(norm(nn.Dense(self.width, name="fc")(x))))


def compared_again(monkeypatch, candidate: type[nn.Module], is_large: bool, everything: bool) -> dict[str, Any]:
    """A result with a lowered rate, where all stages are repeated or only what depends on the rate."""
    with monkeypatch.context() as patch:
        if is_large:
            patch.setattr(compiled, "LARGE_TRAINING", 0)
            patch.setattr(held_outputs, "LARGE_OUTPUT", 8)
        if everything:
            patch.setattr(default_rate, "advance", lambda state, stages: advance(replace(state, before=None), stages))
            patch.setattr(default_rate, "try_rate", lambda _, __, rate: rate)
        rows = (linear("fc", old="fc", new="fc"), batch_norm("norm", old="norm", new="norm"))
        case = Case(
            "", {"old": Normed, "new": candidate}, {"x": "float32[4,3]"}, rows, loss=BLOWING_UP["a large factor"]
        )
        result = run_case(LoadedCase("blown up", "", case))
    assert any("lowered" in remark for remark in remarks_of(result))
    return asdict(replace(result, seconds=0.0))


@pytest.mark.parametrize(
    ("candidate", "verdict", "is_large"),
    [
        pytest.param(Squared, "same", False, marks=pytest.mark.slow),
        (Squared, "same", True),
        pytest.param(Swayed, "different", False, marks=pytest.mark.slow),
        pytest.param(Swayed, "different", True, marks=pytest.mark.slow),
    ],
)
def test_what_does_not_depend_on_the_rate_is_kept(candidate, verdict, is_large, monkeypatch):
    """The verdict and all evidence are those of everything repeated."""
    kept = compared_again(monkeypatch, candidate, is_large, everything=False)
    repeated = compared_again(monkeypatch, candidate, is_large, everything=True)
    assert kept["verdicts"] == {"new": verdict}
    assert kept == repeated


def test_calls_and_their_proofs_are_made_once(monkeypatch):
    """With a lower rate each port's train step is traced, numbered and run again, and nothing else."""
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    traced: list[str] = []
    numbered: list[ProgramName] = []
    ran: list[bool] = []
    number, trace, stream = NumberedPort._number, traced_port.trace_forward, run_port.stream_then_eval
    monkeypatch.setattr(traced_port, "trace_forward", lambda tracer, name: traced.append(name) or trace(tracer, name))
    monkeypatch.setattr(NumberedPort, "_number", lambda port, *given: numbered.append(given[0]) or number(port, *given))
    monkeypatch.setattr(
        run_port, "stream_then_eval", lambda *given, calls=True: ran.append(calls) or stream(*given, calls=calls)
    )
    rows = (linear("fc", old="fc", new="fc"), batch_norm("norm", old="norm", new="norm"))
    case = Case("", {"old": Normed, "new": Squared}, {"x": "float32[4,3]"}, rows, loss=BLOWING_UP["a large factor"])
    state = advance(check_structure(open_case(case)), (trace_ports, prove_ports, start_compiling, start_reference))
    seen = len(traced), len(numbered), len(ran)
    lowered = lower_default_rate(state, (trace_ports, prove_ports, start_compiling, start_reference))
    assert lowered.built_case.case.optimizer != state.built_case.case.optimizer
    assert not traced[seen[0] :]
    assert set(numbered[seen[1] :]) == {BEGIN, STEP}
    assert not any(ran[seen[2] :])


def lowerings(is_large: bool, monkeypatch) -> int:
    """How often all of a reference is run again until it does not blow up."""
    said: list[str] = []
    with monkeypatch.context() as patch:
        if is_large:
            patch.setattr(compiled, "LARGE_TRAINING", 0)
        rows = (linear("fc", old="fc", new="fc"), batch_norm("norm", old="norm", new="norm"))
        loss = BLOWING_UP["an exponential"]
        case = Case("", {"old": Normed, "new": Normed}, {"x": "float32[4,3]"}, rows, loss=loss)
        stages = (trace_ports, start_compiling, start_reference)
        state = lower_default_rate(advance(replace(open_case(case, said.append), candidates=()), stages), stages)
    rate = state.built_case.case.optimizer.rate
    assert bearable_rate(rate, state.observed) == rate < 1e-4
    return sum("trying the rate" in text for text in said)


def test_a_large_step_is_tried_by_itself(monkeypatch):
    """A rate with which it blows up, too, is known before all else is run with it."""
    assert (lowerings(False, monkeypatch), lowerings(True, monkeypatch)) == (2, 1)


def reference_of(moves: list[float], dtype: str = "float32") -> Reference:
    """A reference with one parameter of size 1, and by how much each train step moves it."""
    leaf = MappedLeaf("w", NativeKey("params", "w"), Identity(), LeafSpec((2,), dtype), (2,))
    values = np.stack([np.full(len(moves), 0.6), 0.8 + np.cumsum(moves)], axis=1)
    outputs = {trained_leaf("w"): values.astype(dtype)}
    probe = Probe("0", 1, {"w": np.array([0.6, 0.8], dtype)}, {})
    table = LeafTable("linen", (leaf,))
    observed = PortOutputs(table, 0, {"0": Sample(outputs, None)}, {}, {}, train_step="default")
    return Reference(observed, (probe,), RoundingNoise({}, {}, {}))


@pytest.mark.parametrize(
    ("moves", "rate"),
    [
        ([0.5, 0.5, 0.5], 0.1),
        ([0.9, -0.9, 0.9], 0.1),
        ([0.5, 0.5, 2.0], 0.01),
        ([20.0, 0.0, 0.0], 0.001),
        ([0.5, np.inf, np.nan], 0.01),
        ([np.nan, np.nan, np.nan], 0.1),
        ([1e30, 0.0, 0.0], 0.1),
    ],
)
def test_a_step_may_move_a_parameter_by_its_size(moves, rate):
    """Where even the first step is not finite, or would have to vanish in rounding, no rate helps."""
    assert bearable_rate(0.1, reference_of(moves)) == pytest.approx(rate)


def test_a_fault_shows_at_the_lowered_rate_too():
    """A bias that is not trained; at the rate that blows up, the noise is larger than what it is moved by."""

    def frozen_bias(rngs):
        import jax

        net = nnx_port(None)(rngs)

        class Frozen(type(net)):
            def __call__(self, x):
                return x @ self.fc.kernel + jax.lax.stop_gradient(self.fc.bias)

        return Frozen()

    case = replace(case_of(linen=linen_port(None), nnx=frozen_bias), loss=BLOWING_UP["a large factor"])
    case = replace(case, checks=just("train"))
    result = run_case(LoadedCase("blown up", "", case))
    assert result.verdicts == {"nnx": "different"}
    (train,) = [check for check in result.checks if check.check == "train"]
    assert next(finding.leaf for finding in train.findings if finding.grade == "refuted") == "fc/bias"
