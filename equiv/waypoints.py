"""Refuted candidates walked beside the reference: from where on do they compute other values?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax

from equiv.errors import EquivError
from equiv.evidence.execute import feed
from equiv.evidence.walk import Inputs, walk
from equiv.probe import Probe, nudged
from equiv.program import Program
from equiv.results import CheckResult, Finding
from equiv.traced import Traced, lift_program

NUDGES = 2
"""How often the inputs are moved by an ulp."""

FIRST = ("eval ", "call ", "train ", "gradient ")
"""Programs from the simplest on."""


def walked(checks: list[CheckResult], left: Traced, right: Traced, probe: Probe, steps: int) -> list[CheckResult]:
    """The same checks, the first refuted one with the way through its simplest program.

    Args:
        checks: of one candidate.
        left: the reference.
        right: the candidate.
        probe: what both are run on.
        steps: number of train steps that the probe has batches for.
    """
    found = sorted(_refused(checks, left, right), key=lambda pair: pair[0])
    if not found:
        return checks
    _, name, first = found[0]
    with jax.enable_x64(True):
        try:
            pair = lift_program(left, name), lift_program(right, name)
            points = _walk(pair, (left, right), probe, steps)
        except EquivError:
            return checks  # what cannot be run in float64 is said beside its grade
    return [replace(check, walk=points) if check is first else check for check in checks]


def _refused(checks: list[CheckResult], left: Traced, right: Traced) -> Iterator[tuple[int, str, CheckResult]]:
    shared = {part.name for part in left.programs.parts} & {part.name for part in right.programs.parts}
    for check in checks:
        for finding in check.findings:
            name = _program(finding)
            if finding.grade == "refuted" and finding.error and name in shared:
                yield next(index for index, word in enumerate(FIRST) if name.startswith(word)), name, check


def _program(finding: Finding) -> str:
    return finding.place.partition(": ")[0]


def _walk(pair: tuple[Program, Program], ports: tuple[Traced, Traced], probe: Probe, steps: int) -> Any:
    reference, candidate = pair
    inputs = tuple(_inputs(program, port, probe, steps) for program, port in zip(pair, ports, strict=True))
    moved = [_inputs(reference, ports[0], nudged(probe, seed, "float64"), steps) for seed in range(1, NUDGES + 1)]
    return walk(reference, candidate, (inputs[0], inputs[1]), moved)


def _inputs(program: Program, port: Traced, probe: Probe, steps: int) -> Inputs:
    """What a probe feeds to one forward or gradient program in float64."""
    programs = replace(port.programs, lifted=True, parts=(program,), begin=None, step=None)
    fed = feed(programs, port.table, steps, probe)
    given: dict[str, Any] = {**fed["variables"], **{f"batch/{name}": one[0] for name, one in fed["batches"].items()}}
    given |= {name.removeprefix(f"{program.name}: "): one for name, one in fed["cotangents"].items()}
    return given | {f"draw/{index}": bits for index, bits in enumerate(fed["draws"][program.name])}
