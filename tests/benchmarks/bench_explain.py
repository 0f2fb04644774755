"""What it costs to say where a decoder differs: a refuted run over the same run where it is right.

`python tests/benchmarks/bench_explain.py [LAYERS ..]`: for each depth the GPT of `deep_models.py` in Linen and NNX,
right, and with a wrong epsilon in the middle block of NNX; each in a process of its own. Printed are processor time and peak
memory of both, their ratios, and the exponent with which the ratio grows.
"""

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

EPSILON = 1e-3
"""The wrong one."""


def compare(layers: int, wrong: bool) -> None:
    """Run the case, right or with the fault."""
    from deep_models import gpt

    from equiv.comparison.pipeline import run_case
    from equiv.core.case_files import LoadedCase

    case = gpt(layers)

    def nnx(rngs: Any) -> Any:
        build: Callable[..., Any] = case.models["nnx"]
        model = build(rngs)
        if wrong:
            model.blocks[layers // 2].norm_2.epsilon = EPSILON
        return model

    result = run_case(LoadedCase("decoder", "", replace(case, models={"linen": case.models["linen"], "nnx": nnx})))
    wanted = "different" if wrong else "same"
    assert result.verdicts == {"nnx": wanted}, result.verdicts
    if wrong:
        found = [one for check in result.checks for item in check.findings for one in item.divergences]
        places = {site.layer for one in found for site in one.sites}
        assert f"blocks.{layers // 2}.norm_2" in places, places


def _measure(layers: int, wrong: bool, connection: Any) -> None:
    clock = time.process_time()
    compare(layers, wrong)
    connection.send((time.process_time() - clock, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(layers: int, wrong: bool) -> tuple[float, float]:
    """Seconds of processor time and MiB at most, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(layers, wrong, theirs))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def main(depths: list[int]) -> None:
    """Measure every depth, and print."""
    before: tuple[int, float] | None = None
    for layers in depths:
        (right, small), (refuted, large) = measure(layers, False), measure(layers, True)
        ratio = refuted / right
        growth = ""
        if before is not None:
            growth = f", exponent {math.log(refuted / before[1]) / math.log(layers / before[0]):.2f}"
        print(
            f"{layers} layers: right {right:.1f} s, {small:.0f} MiB; refuted {refuted:.1f} s, {large:.0f} MiB: "
            f"{ratio:.2f} x the time, {large / small:.2f} x the memory{growth}",
            flush=True,
        )
        before = layers, refuted


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]] or [6, 12, 24, 48])
