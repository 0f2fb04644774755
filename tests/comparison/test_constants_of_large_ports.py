"""Constants of ports whose training is large are read as those of small ones, and no run is held as a whole."""

import pytest
from helpers import case_from

from equiv.comparison.numeric import fold, held_outputs
from equiv.comparison.numeric.held_outputs import HeldOutputs
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import advance
from equiv.core.grades import EQUAL_GRADES
from equiv.programs import compiled

SOURCE = """
import numpy as np

from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4, name="l")(x) / np.sqrt(8).astype("float32")

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.l = nnx.Linear(5, 4, rngs=rngs)

        def __call__(self, x):
            return self.l(x) * FACTOR

    return Model()


CASE = Case(
    guide="none: one number, rounded and not",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[7,5]"},
    layers=(linear("l", linen="l", nnx="l"),),
    steps=2,
)
"""


def judged(factor: str) -> list[tuple[str, str, str]]:
    """Check, grade and summary, and the note of what it found first."""
    opened = check_structure(open_case(case_from(SOURCE.replace("FACTOR", factor), "constants")))
    started = advance(opened, (trace_ports, prove_ports, start_compiling, run_reference))
    found = check_candidates(started).checks
    return [(one.check, one.grade, one.findings[0].note if one.findings else "") for one in found]


@pytest.mark.parametrize(("factor", "is_same"), [("8**-0.5", True), ("8**-0.5 * (1 + 2e-7)", False)])
def test_large_training_is_read_in_parts(factor, is_same, monkeypatch):
    """What is fetched is what is shown; of no run all outputs."""
    whole = judged(factor)
    as_a_whole: list[bool] = []
    compute = HeldOutputs._compute

    def compute_and_count(self, names):
        as_a_whole.append(frozenset(names) == self.large.keys())
        return compute(self, names)

    monkeypatch.setattr(HeldOutputs, "_compute", compute_and_count)
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    monkeypatch.setattr(held_outputs, "LARGE_OUTPUT", 8)
    monkeypatch.setattr(fold, "FETCHED", 0)
    assert judged(factor) == whole
    assert not any(as_a_whole)
    assert ("read to more digits" in str(whole)) == is_same
    assert ({grade for _, grade, _ in whole} <= set(EQUAL_GRADES)) == is_same
