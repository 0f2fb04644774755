"""Measure one program of all ports: compiled in rounds, counted, and called in interleaved blocks with a control."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from equiv.bench import hlo_diff
from equiv.bench.blocks import Blocks, Clock, Runner, back_to_back, collect_blocks, run_block
from equiv.bench.measurement import Measurement, begin_measurement
from equiv.bench.ratios import block_quartiles, claim, difference_ratio, naive_ratio, paired_ratio
from equiv.bench.stages import STAGES, BareProgram, Bench, CompiledVariant, TimedRunner, bare_program, program_cost
from equiv.core.timings import CaseCosts, HostPart, Phase, Timing

STEADY: tuple[Phase, ...] = ("step", "dispatch", "device")

BARE = ("program", "empty")
"""A compiled program by itself, and an empty one of as many arrays."""

NAIVE_CALLS, INSIDE_CALLS = 50, 50
"""Calls that are timed back to back, and calls whose host parts are timed."""


def measure(bench: Bench, program: str, withheld: Mapping[str, str], seconds: float, clock: Clock) -> CaseCosts:
    """Measure one program: half of the time for the phases that happen once, the rest for repeated calls.

    Args:
        bench: the ports.
        program: which.
        withheld: backends that are not timed.
        seconds: for how long; a minimum is measured even where it takes longer.
        clock: seconds.

    Raises:
        EquivError: the reference cannot be timed.
    """
    measurement = begin_measurement(bench, program, withheld, clock)
    once = collect_blocks(measurement.compile_all, lambda: measurement.pairs("compile"), clock() + seconds / 2, clock)
    staged = {who: measurement.variants[who][-1] for who in measurement.timed_runners}
    first = staged[measurement.timed_runners[0]]
    costs = tuple(program_cost(who, one, first) for who, one in staged.items() if not who.is_control)
    steady = call_blocks(measurement, seconds / 2, grace=seconds)
    usual = back_to_back(
        measurement.start_runners({who: one.written.start for who, one in staged.items()}), NAIVE_CALLS, clock
    )
    parts = tuple(part for who, one in staged.items() for part in _host_parts(who, one, steady, clock))
    timings = (*_timings(measurement, STAGES, once, {}), *_timings(measurement, STEADY, steady, usual))
    return CaseCosts(timings=timings, programs=costs, parts=parts, withheld=measurement.failed)


def call_blocks(measurement: Measurement, seconds: float, grace: float) -> Blocks:
    """Collect blocks of steps, of bare compiled programs, and of empty ones.

    Args:
        measurement: whose runners have compiled variants.
        seconds: for how long.
        grace: seconds beyond that, for as many blocks as a claim needs.
    """
    programs = _bare_programs({who: measurement.variants[who][-1] for who in measurement.timed_runners})

    def call_all() -> dict[Any, np.ndarray]:
        starts: dict[Any, Callable[[], Runner]] = {}
        for who, one in measurement.sample_variants(measurement.variants).items():
            starts[who, "step"] = one.written.start
        for who, pair in measurement.sample_variants({who: [pair] for who, pair in programs.items()}).items():
            starts |= {(who, kind): start for kind, start in zip(BARE, pair, strict=True)}
        return run_block(measurement.start_runners(starts), measurement.rng, measurement.clock)

    return collect_blocks(
        call_all, lambda: measurement.pairs("step"), measurement.clock() + seconds, measurement.clock, grace
    )


def _bare_programs(
    staged: Mapping[TimedRunner, CompiledVariant],
) -> dict[TimedRunner, tuple[Callable[[], BareProgram], Callable[[], BareProgram]]]:
    """The bare compiled program of every runner; runners of a port that compile to the same program share one."""
    programs: dict[TimedRunner, tuple[Callable[[], BareProgram], Callable[[], BareProgram]]] = {}
    for who, one in staged.items():
        like = [
            pair
            for other, pair in programs.items()
            if other.backend == who.backend
            and not who.is_control
            and not hlo_diff.difference(staged[other].text, one.text)
        ]
        programs[who] = like[0] if like else bare_program(one)
    return programs


def _host_parts(who: TimedRunner, staged: CompiledVariant, steady: Blocks, clock: Clock) -> list[HostPart]:
    """Time of a call by its part on the host, for a runner that reports it; the device time is that of the program."""
    look = staged.written.host_timer
    if look is None:
        return []
    running = staged.written.start()
    looked = [look(running, clock) for _ in range(INSIDE_CALLS)]
    parts = {part: float(block_quartiles([np.array([one[part] for one in looked])])[0]) for part in looked[0]}
    device = float(np.median(block_values(steady, who, "device")[0]))
    shown = {
        "modules to arrays": parts["modules to arrays"],
        "jax.jit dispatch": max(0.0, parts["jax.jit"] - device),
        "compiled program": min(device, parts["jax.jit"]),
        "arrays to modules": parts["arrays to modules"],
    }
    program = staged.written.program
    return [HostPart(who.backend, program, who.runner, part, seconds) for part, seconds in shown.items()]


def _timings(
    measurement: Measurement, phases: tuple[Phase, ...], blocks: Blocks, usual: Mapping[Any, np.ndarray]
) -> list[Timing]:
    """Rows of the report: every runner but the control, which is a column of each."""
    first, control_runner, *candidates = measurement.timed_runners
    rows = []
    for phase in phases:
        under, _ = block_values(blocks, first, phase)
        ratio_of = difference_ratio if phase in ("dispatch", "device") else paired_ratio
        control = ratio_of(block_values(blocks, control_runner, phase)[0], under)
        for who in (first, *candidates):
            over, calls = block_values(blocks, who, phase)
            ratio = None if who is first else ratio_of(over, under)
            numerator = control_runner if who is first else who
            naive = naive_ratio(usual[numerator], usual[first]) if phase == "step" else None
            p50, p90, p99 = np.quantile(calls, (0.5, 0.9, 0.99)).tolist()
            rows.append(
                Timing(
                    backend=who.backend,
                    program=measurement.program,
                    runner=who.runner,
                    phase=phase,
                    rounds=len(over),
                    p50=p50,
                    p90=p90,
                    p99=p99,
                    ratio=ratio,
                    control=control,
                    back_to_back=naive,
                    claim=claim(ratio, control, len(over)),
                    calls=len(calls),
                )
            )
    return rows


def block_values(blocks: Blocks, who: TimedRunner, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
    """One number per block, and the values that percentiles are taken of: all calls, or the differences per block.

    `device` is what the compiled program takes beyond an empty one, `dispatch` the rest of a step.
    """
    if phase not in ("dispatch", "device"):
        return block_quartiles(blocks[who, phase]), np.concatenate(blocks[who, phase])
    device = block_quartiles(blocks[who, "program"]) - block_quartiles(blocks[who, "empty"])
    part = device if phase == "device" else block_quartiles(blocks[who, "step"]) - device
    return part, part
