"""How each stage grows with depth: the GPT of `deep_models.py` in Linen and NNX with its train step, 6 to 96 layers.

Run it with `nox -s bench`, or with depths as arguments; `reports/growth.html` gets a plot and a table. Printed per
depth: equations of both ports, the largest memory so far, and for each stage that compiles nothing its seconds of
processor time and the exponent with which they grow from one depth to the next (1: as the depth). Every output has to
be proved.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from deep_models import gpt
from growth_page import Depth, fit_exponents, render_growth

from equiv.comparison.prove_only import check_by_proof
from equiv.comparison.stages import break_proofs, check_structure, open_case, prove_ports, trace_ports, trace_sizes
from equiv.comparison.state import CaseState
from equiv.core.case import Case
from equiv.frontends.cli.base import GC_THRESHOLDS
from equiv.programs.jaxpr import count_equations
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.traced_port import trace_port_float64

PAGE = Path(__file__).parents[2] / "reports" / "growth.html"


def trace_float64(state: CaseState) -> CaseState:
    """Trace every port in float64, as where something is not proved."""
    reasons = [one for traced in state.traced.values() if isinstance(one := trace_port_float64(traced), str)]
    assert not reasons, reasons
    return state


STAGES: dict[str, Callable[[CaseState], CaseState]] = {
    "structure": check_structure,
    "trace": trace_ports,
    "float64": trace_float64,
    "prove": prove_ports,
    "check": check_by_proof,
    "break": break_proofs,
    "sizes": trace_sizes,
}
"""What follows on building and mapping, in the order of a run; `sizes` leaves out what is large."""


def decoder(layers: int) -> Case:
    """The case with so many blocks."""
    case = gpt(layers)
    return replace(case, models={name: case.models[name] for name in ("linen", "nnx")})


def measure(layers: int) -> tuple[int, dict[str, float]]:
    """Equations of both ports, and stage to its seconds of processor time."""
    seconds, clock = {}, time.process_time()
    state = open_case(decoder(layers))
    seconds["build"] = time.process_time() - clock
    for name, stage in STAGES.items():
        clock = time.process_time()
        state = stage(state)
        seconds[name] = time.process_time() - clock
    unproved = [one.place for check in state.checks for one in check.findings if one.grade == "not run"]
    assert not unproved, f"{len(unproved)} places are not proved, such as {unproved[0]}"
    programs = (part for traced in state.traced.values() for part in all_programs(traced.programs))
    return sum(count_equations(part.jaxpr) for part in programs), seconds


def main() -> None:
    """Measure, print and write."""
    gc.set_threshold(*GC_THRESHOLDS)
    depths = [int(depth) for depth in sys.argv[1:]] or [6, 12, 24, 48, 96]
    measure(2)  # what jax and the libraries do once
    found: list[Depth] = []
    for layers in depths:
        equations, seconds = measure(layers)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{layers} layers, {equations} equations, {memory:.2f} GiB", flush=True)
        print("  seconds  ", "  ".join(f"{name} {value:.2f}" for name, value in seconds.items()), flush=True)
        found.append(Depth(layers, equations, memory, seconds))
        if len(found) > 1:
            grown = fit_exponents(found[-2:])
            print("  exponents", "  ".join(f"{name} {one:.2f}" for name, one in grown.items()), flush=True)
    if len(found) > 1:
        print("over all  ", "  ".join(f"{name} {one:.2f}" for name, one in fit_exponents(found).items()))
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render_growth(found))


if __name__ == "__main__":
    main()
