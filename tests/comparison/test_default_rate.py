"""The rate of the default train step is lowered where training blows up with it, and only there."""

import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import just
from trained_ports import case_of, linen_port, loaded_case, nnx_port

from equiv.comparison.default_rate import bearable_rate
from equiv.comparison.observation import PortOutputs, RoundingNoise, Sample
from equiv.comparison.pipeline import run_case
from equiv.comparison.state import Reference
from equiv.core.case_files import LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.core.output_name import trained_leaf
from equiv.core.results import CaseResult
from equiv.programs.probes import Probe


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
