"""What it costs to say where a decoder differs: a refuted run over the same run where it is right.

`python tests/benchmarks/bench_explain.py [--checks NAME,...] [LAYERS ..]`: for each depth the GPT of `deep_models.py`
in Linen and NNX, right, and with a wrong epsilon in the middle block of NNX; each in a process of its own. Printed are
processor time and peak memory of both, their ratios, the part of the time in which places and causes are looked for,
and the exponent with which that grows. The rest of what a refuted run costs is float64, which a proof does without.
"""

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

EPSILON = 1e-3
"""The wrong one."""


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: of processor time.
        explaining: of these, until places and causes were found.
        memory: MiB at most.
    """

    seconds: float
    explaining: float
    memory: float


def compare(layers: int, wrong: bool, checks: tuple[str, ...] | None) -> float:
    """Run the case, right or with the fault: the seconds in which places and causes were looked for."""
    from deep_models import gpt

    from equiv.comparison import stages
    from equiv.comparison.pipeline import run_case
    from equiv.core.case_files import LoadedCase

    case, spent, explain = replace(gpt(layers), checks=checks), [0.0], stages.add_divergences

    def timed(*given: Any) -> Any:
        clock = time.process_time()
        found = explain(*given)
        spent[0] += time.process_time() - clock
        return found

    stages.add_divergences = timed

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
    return spent[0]


def _measure(layers: int, wrong: bool, checks: tuple[str, ...] | None, connection: Any) -> None:
    clock = time.process_time()
    explaining = compare(layers, wrong, checks)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    connection.send(Cost(time.process_time() - clock, explaining, memory))


def measure(layers: int, wrong: bool, checks: tuple[str, ...] | None) -> Cost:
    """What a run takes, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(layers, wrong, checks, theirs))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def main() -> None:
    """Measure every depth, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", type=int, default=[6, 12, 24, 48])
    parser.add_argument("--checks", help="make only these checks")
    given = parser.parse_args()
    before: tuple[int, float] | None = None
    for layers in given.layers:
        checks = given.checks and tuple(given.checks.split(","))
        right, refuted = (measure(layers, wrong, checks) for wrong in (False, True))
        growth = ""
        if before is not None:
            growth = f", exponent {math.log(refuted.explaining / before[1]) / math.log(layers / before[0]):.2f}"
        print(
            f"{layers} layers: right {right.seconds:.1f} s, {right.memory:.0f} MiB; refuted {refuted.seconds:.1f} s, "
            f"{refuted.memory:.0f} MiB: {refuted.seconds / right.seconds:.2f} x the time, "
            f"{refuted.memory / right.memory:.2f} x the memory; of it places and causes {refuted.explaining:.1f} s, "
            f"{refuted.explaining / right.seconds:.2f} x{growth}",
            flush=True,
        )
        before = layers, refuted.explaining


if __name__ == "__main__":
    main()
