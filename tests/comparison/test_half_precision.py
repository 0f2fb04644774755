"""Models in half precision: a wrong constant is found although their own numbers cannot show it."""

from dataclasses import replace

import pytest
from helpers import case_from, just

from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult

SOURCE = """
from equiv.case import Case
from equiv.layers import linear, module


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(16, dtype=jnp.DTYPE, param_dtype=jnp.DTYPE)(x)
            x = nn.LayerNorm(epsilon=1e-5, dtype=jnp.DTYPE, param_dtype=jnp.DTYPE)(x)
            return nn.Dense(3, dtype=jnp.DTYPE, param_dtype=jnp.DTYPE)(x)

    return Model()


def nnx(rngs):
    from flax import nnx
    import jax.numpy as jnp

    kinds = dict(dtype=jnp.DTYPE, param_dtype=jnp.DTYPE, rngs=rngs)

    class Model(nnx.Module):
        def __init__(self):
            self.up, self.norm = nnx.Linear(5, 16, **kinds), nnx.LayerNorm(16, epsilon=EPSILON, **kinds)
            self.down = nnx.Linear(16, 3, **kinds)

        def __call__(self, x):
            return self.down(self.norm(self.up(x)))

    return Model()


CASE = Case(
    guide="half precision",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "DTYPE[7,5]"},
    layers=(
        linear("up", linen="Dense_0", nnx="up"),
        module("norm", "scale", "bias", linen="LayerNorm_0", nnx="norm"),
        linear("down", linen="Dense_1", nnx="down"),
    ),
)
"""


def judged(dtype: str, epsilon: str, checks: tuple[str, ...] | None = None) -> CaseResult:
    """The case in one dtype, with the candidate's epsilon."""
    case = case_from(SOURCE.replace("DTYPE", dtype).replace("EPSILON", epsilon), f"half_{dtype}")
    return run_case(LoadedCase("half", "", replace(case, checks=checks)))


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_honest_port_in_half_precision_is_the_same(dtype: str) -> None:
    """Proved, and its numbers stay within the budget of its dtype."""
    result = judged(dtype, "1e-5")
    assert result.verdicts == {"nnx": "same"}
    assert {check.grade for check in result.checks} <= {"exact", "proved"}


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_wrong_layer_norm_epsilon_is_refuted_in_half_precision(dtype: str) -> None:
    """1e-6 for 1e-5 is far below one ulp of the model's own numbers; its float64 run shows it, at the right place."""
    result = judged(dtype, "1e-6", just("outputs"))
    outputs = next(check for check in result.checks if check.check == "outputs")
    finding = next(finding for finding in outputs.findings if finding.place == "call __call__: output")
    assert (result.verdicts["nnx"], finding.grade, finding.precision) == ("different", "refuted", "float64")
    assert ("nnx", "add") in [(one.port, one.primitive) for one in finding.first_differences]
