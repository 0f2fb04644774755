"""How costs grow with the number of layers, unrolled and scanned."""

import helpers
import pytest

from equiv.bench.depth_scaling import measure_growth
from equiv.core.case import Case, Depths
from equiv.core.timings import PHASES
from equiv.errors import NotRun

pytestmark = pytest.mark.usefixtures("serial")


def dense(num_layers: int, scanned: bool):
    import flax.linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(nn.Dense(4)(x)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            if scanned:
                Stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=num_layers)
                return Stack()(x, None)[0]
            for _ in range(num_layers):
                x, _ = Block()(x, None)
            return x

    return Model()


DEEP = Case(
    guide="",
    models={},
    batch={"x": "float32[2,4]"},
    layers=(),
    depths=Depths(
        unrolled={"linen": lambda num_layers: dense(num_layers, False)},
        scanned={"linen": lambda num_layers: dense(num_layers, True)},
        layers=(2, 4),
    ),
)


def test_growing_measures_phases_by_depth_and_only_unrolled_equations_grow() -> None:
    """What the guides say of a scan."""
    found = measure_growth(DEEP, {}, 0.0)
    every = {(form, depth, phase) for form in ("unrolled", "scanned") for depth in (2, 4) for phase in PHASES}
    lost = every - {(one.form, one.depth, one.phase) for one in found}
    assert {phase for _, _, phase in lost} <= {"dispatch", "device"}
    sizes = {(one.form, one.depth): (one.equations, one.instructions) for one in found}
    assert sizes["unrolled", 4][0] > 1.5 * sizes["unrolled", 2][0]
    assert sizes["unrolled", 4][1] > 1.5 * sizes["unrolled", 2][1]
    assert sizes["scanned", 4][0] == sizes["scanned", 2][0]
    assert min(one.seconds for one in found) > 0


def test_growing_leaves_out_who_is_withheld() -> None:
    """As timing does."""
    with pytest.raises(NotRun, match=r"nothing to time at 2 layers: every model of `unrolled` is withheld"):
        measure_growth(DEEP, {"linen": "different"}, 0.0)


def test_a_case_without_depths_does_not_grow() -> None:
    """It is asked for by name."""
    assert measure_growth(helpers.loaded("counter").case, {}, 0.0) == ()
