"""The guides' six cases as ordinary pytest-benchmark benchmarks, grouped by case, program and phase.

    python -m pytest tests/benchmarks/bench_cases.py --benchmark-only [-k "dropout and step"] [--benchmark-compare]

pytest-benchmark itself measures one way after the other, which a busy machine distorts (`bench_timing.py`). The ratios
of the interleaved rounds are in `extra_info`, with interval, control and claim. EQUIV_BENCH_SECONDS is how long each
case is timed for them (30).
"""

import os
from functools import cache
from pathlib import Path

import pytest

SIX = ("dropout", "batch_norm", "auto_encoder", "rnn_scan", "scan_over_layers", "counter")
WAYS = {
    "haiku": ("haiku", "jax.jit"),
    "linen": ("linen", "jax.jit"),
    "nnx": ("nnx", "nnx.jit"),
    "nnx_split": ("nnx", "split + jax.jit"),
}
PROGRAMS = ("forward", "gradients", "train step")
CASES = Path(__file__).parents[2] / "cases"
ROUNDS = {"trace": 5, "lower": 5, "compile": 3, "step": 50}


@pytest.fixture(scope="session", autouse=True)
def alone():
    """Refuse to time in one of several processes; without the persistent cache in this one."""
    from equiv.bench.case_costs import refuse_under_xdist
    from equiv.bench.stages import uncached
    from equiv.errors import NotRun

    refused = ""
    try:
        refuse_under_xdist()
    except NotRun as refusal:
        refused = str(refusal)
    if refused:
        pytest.fail(refused, pytrace=False)
    with uncached():
        yield


@cache
def workshop_of(name):
    """The case with its ports built."""
    from equiv.core.case_files import CaseFile, load_case
    from equiv.programs.built_case import build_case

    return build_case(load_case(CaseFile(name, CASES / f"{name}.py")).case)


@cache
def priced(name):
    """The interleaved rounds, once for all benchmarks of a case; the cases are judged by the tests."""
    from equiv.bench.case_costs import measure_costs

    costs = measure_costs(workshop_of(name), {}, float(os.environ.get("EQUIV_BENCH_SECONDS", "30")))
    return {(one.backend, one.runner, one.program, one.phase): one for one in costs.timings}


@cache
def bench_of(name):
    """Its ports with values."""
    from equiv.bench import case_costs as pricing

    return pricing.make_bench(workshop_of(name), {})


def written(name, backend, runner, program):
    """The program, not yet traced; warm in what the libraries keep between traces."""
    from equiv.bench.stages import warm_up

    one, again = (
        next(one for one in bench_of(name).written(backend, program) if one.runner == runner) for _ in range(2)
    )
    warm_up(one)
    return again


@pytest.mark.parametrize("phase", ROUNDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.replace(" ", "_"))
@pytest.mark.parametrize("name", SIX)
def test_cost(benchmark, name, program, way, phase):
    """One phase of one program of one port."""
    from equiv.backends.environment import describe_environment
    from equiv.bench.session import VERDICT_ENVIRONMENT

    backend, runner = WAYS[way]
    found = priced(name)[backend, runner, program, phase]
    benchmark.group = f"{name}: {program}, {phase}"
    for part, ratio in (("ratio", found.ratio), ("control", found.control), ("naive", found.back_to_back)):
        if ratio is not None:
            benchmark.extra_info[part] = [ratio.value, ratio.low, ratio.high]
    benchmark.extra_info |= {
        "claim": found.claim,
        "rounds": found.rounds,
        "reference": next(iter(bench_of(name).ports)),
        "environment": {part: describe_environment()[part] for part in VERDICT_ENVIRONMENT},
    }

    def traced():
        one = written(name, backend, runner, program)
        return one.function, one.start().arguments

    def trace(function, given):
        return function.trace(*given[0], **given[1])

    if phase == "trace":
        benchmark.pedantic(trace, setup=lambda: (traced(), {}), rounds=ROUNDS[phase])
    elif phase == "lower":
        benchmark.pedantic(lambda one: one.lower(), setup=lambda: ((trace(*traced()),), {}), rounds=ROUNDS[phase])
    elif phase == "compile":
        lowered = lambda: ((trace(*traced()).lower(),), {})  # noqa: E731
        benchmark.pedantic(lambda one: one.compile(), setup=lowered, rounds=ROUNDS[phase])
    else:
        running = written(name, backend, runner, program).start()

        def step():
            outputs = running.call()
            running.wait(outputs)
            running.advance(outputs)

        benchmark.pedantic(step, rounds=ROUNDS[phase], warmup_rounds=3)
