"""What a case costs, measured for real on tiny programs: everything is there, and nothing is timed that must not be."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.backends import registry
from equiv.backends.base import ProgramRun
from equiv.backends.user_programs import PROGRAMS, functional_program
from equiv.bench.case_costs import make_bench, measure_costs, refuse_under_xdist
from equiv.bench.depth_scaling import measure_growth
from equiv.bench.measure import block_values
from equiv.bench.measurement import MAX_VARIANTS, Measurement, begin_measurement
from equiv.bench.stages import (
    CACHE,
    STAGES,
    BareProgram,
    Bench,
    TimedRunner,
    bare_program,
    compile_variant,
    random_leaf,
    retraces,
    traces,
    uncached,
)
from equiv.core.case import Case, Depths
from equiv.core.timings import PHASES, TOO_FEW, CaseCosts
from equiv.errors import NotRun, PortError
from equiv.programs.built_case import build_case

WAYS = {("haiku", "jax.jit"), ("linen", "jax.jit"), ("nnx", "nnx.jit"), ("nnx", "split + jax.jit")}


@pytest.fixture(autouse=True, scope="module")
def serial() -> Iterator[None]:
    """What is refused in a worker of pytest-xdist is tried here with small programs all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield


@cache
def costs() -> CaseCosts:
    """The smallest case of the suite, each thing measured as seldom as may be."""
    return measure_costs(helpers.workshop_of("counter"), {}, 0.0)


@cache
def bench() -> Bench:
    """Its ports, ready to be timed."""
    return make_bench(helpers.workshop_of("counter"), {})


def test_every_phase_of_every_program_and_call_is_positive() -> None:
    """Nothing is left out in silence: every way to call a port is there."""
    found = {(one.backend, one.runner, one.program, one.phase) for one in costs().timings}
    assert found == {(*way, program, phase) for way in WAYS for program in PROGRAMS for phase in PHASES}
    for one in costs().timings:
        assert one.rounds >= 1
        assert one.calls >= one.rounds
        assert all(map(math.isfinite, (one.p50, one.p90, one.p99)))
        assert one.p50 <= one.p90 <= one.p99
        assert one.phase in ("dispatch", "device") or one.p50 > 0


def test_every_candidate_has_a_ratio_and_the_control_too() -> None:
    """The reference itself has none; a difference of two times may be none."""
    for one in costs().timings:
        if one.phase in ("dispatch", "device"):
            continue
        assert (one.ratio is None) == (one.backend == "haiku")
        assert one.control is not None
        assert (one.back_to_back is not None) == (one.phase == "step")


def test_what_was_measured_once_claims_nothing() -> None:
    """The control of a single round excludes 1 too."""
    once = [one for one in costs().timings if one.phase in STAGES and one.ratio is not None]
    assert {one.rounds for one in once} == {1}
    assert {one.claim for one in once} == {TOO_FEW}


def test_every_program_is_counted() -> None:
    """Equations and instructions always, and what XLA says of it on this platform."""
    assert {(one.backend, one.runner, one.program) for one in costs().programs} == {
        (*way, program) for way in WAYS for program in PROGRAMS
    }
    for one in costs().programs:
        assert one.equations > 0
        assert one.instructions > one.equations
        assert one.flops is not None
        assert one.bytes is not None
        assert one.peak_bytes is not None
        assert min(one.flops, one.bytes, one.peak_bytes) > 0
        assert one.retraces == 0


def test_linen_compiles_to_haikus_program_and_nnx_copies_its_outputs() -> None:
    """Between the first two any gap is the host's; `nnx.jit` returns the whole state, parameters included."""
    found = {(one.backend, one.program): one for one in costs().programs if one.runner != "split + jax.jit"}
    for program in PROGRAMS:
        assert found["haiku", program].identical
        assert found["linen", program].identical
        assert found["linen", program].differs == ""
        assert not found["nnx", program].identical
    assert "copy +1" in found["nnx", "forward"].differs
    assert "copy" not in found["nnx", "train step"].differs


def test_it_is_said_where_a_call_of_nnx_jit_goes() -> None:
    """Modules are split before the call into JAX and merged after it."""
    parts = {(one.program, one.part): one.seconds for one in costs().parts}
    names = ("modules to arrays", "jax.jit dispatch", "compiled program", "arrays to modules")
    assert set(parts) == {(program, name) for program in PROGRAMS for name in names}
    assert {one.runner for one in costs().parts} == {"nnx.jit"}
    for program in PROGRAMS:
        assert parts[program, "modules to arrays"] > 0
        assert parts[program, "arrays to modules"] > 0


def test_the_load_of_the_machine_stands_beside_the_figures() -> None:
    """Before and after, where the system reports it."""
    assert len(costs().load) == (2 if hasattr(os, "getloadavg") else 0)


UNBUILT = ("self.counter = Counter(", "assert not rngs, 'planted'\n            self.counter = Counter(")


def test_what_cannot_be_timed_is_left_out_with_its_reason() -> None:
    """What breaks in one leaves the others alone."""
    workshop = build_case(helpers.patched("counter", UNBUILT))
    found = measure_costs(workshop, {"linen": "different: because"}, 0.0)
    assert {one.backend for one in (*found.timings, *found.programs)} == {"haiku"}
    assert found.parts == ()
    assert found.withheld["linen"] == "different: because"
    assert re.match(r"nnx: building the model raised AssertionError: planted\. Fix ", found.withheld["nnx"])


def failing(*_) -> None:
    raise AssertionError("planted")


def test_a_candidate_that_fails_while_timed_is_dropped() -> None:
    """First when its programs are written, then in the middle of a round."""
    ports = {**bench().ports, "linen": replace(bench().ports["linen"], user_programs=failing)}
    measurement = begin_measurement(replace(bench(), ports=ports), "forward", {}, lambda: 0.0)
    assert {who.backend for who in measurement.timed_runners} == {"haiku", "nnx"}
    assert re.match(r"linen: timing the forward raised AssertionError: planted\. Fix ", measurement.failed["linen"])
    measurement.bench = replace(bench(), ports={**ports, "nnx": replace(ports["nnx"], user_programs=failing)})
    assert {who.backend for who, _ in measurement.compile_all()} == {"haiku"}
    assert {who.backend for who in measurement.timed_runners} == {"haiku"}
    assert "nnx: timing the forward raised" in measurement.failed["nnx"]


def test_a_reference_that_cannot_be_timed_is_an_error() -> None:
    """There is nothing to divide by."""
    ports = {**bench().ports, "haiku": replace(bench().ports["haiku"], user_programs=failing)}
    with pytest.raises(PortError, match="haiku: timing the forward raised AssertionError: planted"):
        begin_measurement(replace(bench(), ports=ports), "forward", {}, lambda: 0.0)
    workshop = build_case(helpers.patched("counter", ("def haiku():\n", "def haiku():\n    assert False, 'planted'\n")))
    with pytest.raises(PortError, match="haiku: building the model raised AssertionError: planted"):
        measure_costs(workshop, {}, 0.0)


def test_a_backend_that_writes_no_programs_says_so() -> None:
    """A backend of one's own need not be timed."""
    ports = {name: replace(port, user_programs=None) for name, port in bench().ports.items()}
    with pytest.raises(PortError, match=r"nnx: its backend defines no programs to time\. Set `written` of its Port"):
        replace(bench(), ports=ports).written("nnx", "forward")


@pytest.mark.parametrize("backend", registry.backend_names())
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_written_afresh_with_buffers_of_its_own(backend: str, program: str) -> None:
    """What was compiled once never compiles again, and shared buffers would make two runners one."""
    for one, other in zip(bench().written(backend, program), bench().written(backend, program), strict=True):
        assert one.function is not other.function
        with traces() as seen:
            for written in (one, other):
                positional, keywords = written.start().arguments
                written.function.trace(*positional, **keywords)
        assert len(seen) == 2
        first, second = (jax.tree.leaves(one.start().arguments) for _ in range(2))
        assert all(a is not b for a, b in zip(first, second, strict=True) if isinstance(a, jax.Array))


def test_a_train_step_goes_on_from_what_it_returned() -> None:
    """As a training loop does; the counter of the case counts."""
    for backend, path in (("haiku", ("~", "counter")), ("linen", ("counter", "count"))):
        (written,) = bench().written(backend, "train step")
        running = written.start()
        counts = []
        for _ in range(3):
            outputs = running.call()
            running.wait(outputs)
            running.advance(outputs)
            counts.append(int(next(leaf for leaf in jax.tree.leaves(outputs) if leaf.dtype == "int32")))
        assert counts == [counts[0], counts[0] + 1, counts[0] + 2], (backend, path)


def test_a_module_is_changed_in_place_and_waited_for() -> None:
    """`nnx.jit` returns nothing that would have to be ready; the module's own arrays have to."""
    written = next(one for one in bench().written("nnx", "train step") if one.runner == "nnx.jit")
    running = written.start()
    before = [np.asarray(array) for array in running.mutated_arrays()]
    running.wait(running.call())
    after = [np.asarray(array) for array in running.mutated_arrays()]
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_program_alone_gives_the_same_result_from_the_arrays() -> None:
    """What is left of a step without its library; an empty program gives as many arrays."""
    for backend in bench().ports:
        for written in bench().written(backend, "forward"):
            staged = compile_variant(written, lambda: 0.0)
            whole, empty = (start() for start in bare_program(staged))
            assert isinstance(whole, BareProgram)
            outputs = jax.tree.leaves(written.start().call())
            largest = max(whole.call(), key=lambda array: array.size)
            np.testing.assert_array_equal(largest, max(outputs, key=lambda array: array.size))
            assert len(empty.call()) == len(whole.call())
            again = bare_program(staged)[0]
            pairs = zip(again().arrays, again().arrays, strict=True)
            assert all(one is not other for one, other in pairs if isinstance(one, jax.Array))


def cycling(x):
    return x.astype({"float32": "bfloat16", "bfloat16": "float16", "float16": "float32"}[str(x.dtype)])


@pytest.mark.parametrize(("function", "count"), [(lambda x: x + 1, 0), (cycling, 2)], ids=["steady", "cycling"])
def test_a_step_that_changes_a_dtype_is_traced_again(function, count) -> None:
    """The commonest reason for a slow second step."""
    written = functional_program("train step", function, ((jnp.ones(3),), {}), lambda given, outputs: ((outputs,), {}))
    assert retraces(compile_variant(written, lambda: 0.0)) == count


def test_nothing_is_read_from_the_persistent_cache_while_timing(tmp_path: Path) -> None:
    """Reading a file is not compiling; afterwards the setting is what it was."""
    code = f"""
import jax
from equiv.bench.stages import CACHE, uncached
for name, value in (("dir", {str(tmp_path)!r}), ):
    jax.config.update("jax_compilation_cache_dir", value)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_hits" in event else None)
def compiled():
    hits.clear()
    jax.jit(lambda x: x * 2.5 + 1).lower(1.0).compile()
    return len(hits)
first, second = compiled(), compiled()
with uncached():
    inside = compiled()
print(first, second, inside, compiled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "0", "1"]


def inside(seen: list[bool]) -> None:
    with uncached():
        seen.append(getattr(jax.config, CACHE))
        raise KeyError("planted")


def test_the_setting_of_the_cache_returns_even_after_an_error() -> None:
    """It is the user's."""
    before, seen = getattr(jax.config, CACHE), []
    jax.config.update(CACHE, True)
    with pytest.raises(KeyError, match="planted"):
        inside(seen)
    assert seen == [False]
    assert getattr(jax.config, CACHE) is True
    jax.config.update(CACHE, before)


@pytest.mark.parametrize(
    "struct",
    [
        jax.ShapeDtypeStruct((4, 3), "float32"),
        jax.ShapeDtypeStruct((5,), "bfloat16"),
        jax.ShapeDtypeStruct((), "int32"),
        jax.ShapeDtypeStruct((2,), "bool"),
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3)),
    ],
    ids=str,
)
def test_a_leaf_is_filled_with_values_of_its_own_kind(struct) -> None:
    """Keys are keys, a variance is positive."""
    array = random_leaf(struct, np.random.default_rng(0))
    assert (array.shape, array.dtype) == (struct.shape, struct.dtype)
    if jnp.issubdtype(struct.dtype, jnp.floating):
        assert np.isfinite(np.asarray(array, "float64")).all()
        assert len(struct.shape) > 1 or (np.asarray(array, "float64") > 0).all()


def test_the_reference_and_its_control_are_sampled_jointly() -> None:
    """Else an unlucky memory layout would always be on one side; candidates have programs of their own."""
    measurement = begin_measurement(bench(), "forward", {}, lambda: 0.0)
    first, again, *others = measurement.timed_runners
    assert (first, again) == (TimedRunner("haiku", "jax.jit"), TimedRunner("haiku", "jax.jit", is_control=True))
    pools = {first: ["a", "b"], again: ["c", "d"], **{who: [who.runner, "other"] for who in others}}
    drawn = [measurement.sample_variants(pools) for _ in range(200)]
    assert {one[first] for one in drawn} == {one[again] for one in drawn} == {"a", "b", "c", "d"}
    assert all(one[first] != one[again] for one in drawn)
    assert all({one[who] for one in drawn} == {who.runner, "other"} for who in others)


def test_runners_are_made_in_another_order_for_every_block() -> None:
    """Whoever is made first gets the place in memory that was freed last."""
    measurement, made = Measurement(bench(), "forward", lambda: 0.0, []), []
    starts = {name: lambda name=name: made.append(name) for name in "abcd"}
    for _ in range(40):
        assert set(measurement.start_runners(starts)) == set(starts)
    assert len({tuple(made[start : start + 4]) for start in range(0, len(made), 4)}) > 12


def test_a_step_is_device_time_plus_dispatch() -> None:
    """Device time is what its program takes beyond an empty one; the two parts make up the step."""
    who = TimedRunner("nnx", "nnx.jit")
    seconds = {"step": 20.0, "program": 7.0, "empty": 2.0}
    blocks = {(who, kind): [np.full(4, value), np.full(4, 2 * value)] for kind, value in seconds.items()}
    for phase, expected in (("step", [20, 40]), ("device", [5, 10]), ("dispatch", [15, 30])):
        np.testing.assert_array_equal(block_values(blocks, who, phase)[0], expected)


def test_what_is_changed_in_place_is_waited_for_too() -> None:
    """A step that returns nothing is not over when it returns."""
    waited = []

    class Pending:
        def __init__(self, name: str) -> None:
            self.name = name

        def block_until_ready(self) -> None:
            waited.append(self.name)

    ProgramRun(lambda: None, ((), {}), mutated_arrays=lambda: [Pending("changed")]).wait(Pending("output"))
    assert sorted(waited) == ["changed", "output"]


def test_a_few_compiled_programs_are_kept_of_each() -> None:
    """All of them would fill the memory of a large model."""
    measurement = begin_measurement(
        replace(bench(), ports={"linen": bench().ports["linen"]}), "forward", {}, lambda: 0.0
    )
    for _ in range(MAX_VARIANTS + 2):
        measurement.compile_all()
    assert {len(pool) for pool in measurement.variants.values()} == {MAX_VARIANTS}


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


def test_the_interval_library_is_imported_only_where_something_is_timed() -> None:
    """It would double the start of the command line."""
    code = "import sys, equiv.frontends.cli.main, equiv.bench.case_costs; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_timing_is_refused_in_a_worker_of_xdist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would time each other."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    with pytest.raises(
        NotRun, match=r"timing: the pytest-xdist worker gw3 shares the machine .*\. Run it without -n\."
    ):
        refuse_under_xdist()
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    refuse_under_xdist()
