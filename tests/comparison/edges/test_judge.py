"""Large outputs at edges: judged part by part, with what is said of them as a whole."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from equiv.comparison.edges.judge import judge_edge
from equiv.comparison.numeric import held_outputs
from equiv.comparison.numeric.held_outputs import hold_outputs
from equiv.comparison.observation import Comparison, EdgeProbe, RoundingNoise, Sample
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName, ProgramName, trained_leaf
from equiv.programs.compiled import join_parts
from equiv.programs.probes import Probe

CALL, LEAF = OutputName(ProgramName("call", "__call__"), "output", "y"), trained_leaf("d/kernel")

EDGE = EdgeProbe(Probe("edge", 0, {}, {}), calls=True, training=True)

STEPS = 3


def parts_of(change: Any = None, dtype: str = "float32") -> list[tuple[dict[OutputName, np.ndarray], dict[Any, Any]]]:
    """A call and three train steps, as a port computes them; `change` is made in the second step."""
    rng = np.random.default_rng(0)
    steps = [rng.normal(size=(1, 4, 5)).astype("float32") for _ in range(STEPS)]
    if change is not None:
        steps[1][0, 2, 3], steps[1][0, 3, 1] = change
    call = rng.normal(size=(2, 3)).astype("float32")
    return [({CALL: call.astype(dtype)}, {}), *(({LEAF: one.astype(dtype)}, {}) for one in steps)]


def sample_of(change: Any, streamed: bool) -> Sample:
    """What a port gives, in both precisions."""
    found = []
    for dtype in ("float32", "float64"):
        parts = parts_of(change, dtype)
        found.append(
            hold_outputs(lambda parts=parts: iter(parts))[0] if streamed else join_parts([part for part, _ in parts])
        )
    return Sample(found[0], found[1])


def judged(change: Any, streamed: bool) -> list[tuple[Any, ...]]:
    """Judge a port with a change beside one without."""
    responses = {"edge": {CALL: Responses(1e-7), LEAF: Responses(1e-7)}}
    noise = RoundingNoise(responses, {"edge": {CALL: Responses(1e-16), LEAF: Responses(1e-16)}}, {CALL: 1, LEAF: 1})
    ours, theirs = (SimpleNamespace(samples={"edge": sample_of(one, streamed)}) for one in (None, change))
    comparison: Any = Comparison(SimpleNamespace(budget_factor=1.0), ours, theirs, noise)  # pyright: ignore
    return [(one.finding, one.count, one.size, one.overflows) for one in judge_edge(comparison, EDGE, [CALL, LEAF])]


@pytest.mark.parametrize("change", [None, (0.25, 7.0), (np.nan, 7.0), (np.inf, np.inf)])
def test_parts_give_the_findings_of_the_whole(change, monkeypatch):
    monkeypatch.setattr(held_outputs, "LARGE_OUTPUT", 8)
    whole, streamed = judged(change, streamed=False), judged(change, streamed=True)
    assert streamed == whole
    assert bool(whole) == (change is not None)
    for finding, count, size, _ in whole:
        assert (finding.output, finding.index[0], count, size) == (LEAF, 1, 2, 60)
