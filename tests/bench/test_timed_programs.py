"""Programs to be timed: written afresh, called as a user does, compiled without a cache."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench.small_bench import bench

from equiv.backends import registry
from equiv.backends.base import ProgramRun
from equiv.backends.user_programs import PROGRAMS, functional_program
from equiv.bench.stages import (
    CACHE,
    BareProgram,
    bare_program,
    compile_variant,
    random_leaf,
    retraces,
    traces,
    uncached,
)
from equiv.errors import PortError

pytestmark = pytest.mark.usefixtures("serial")


def test_a_backend_that_writes_no_programs_says_so() -> None:
    """A backend of one's own need not be timed."""
    ports = {name: replace(port, user_programs=None) for name, port in bench().ports.items()}
    with pytest.raises(PortError, match=r"nnx: its backend defines no programs to time\. Set `written` of its Port"):
        replace(bench(), ports=ports).written("nnx", "forward")


@pytest.mark.parametrize("backend", registry.backend_names())
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_written_afresh_with_buffers_of_its_own(backend: str, program: str) -> None:
    """What was compiled once never compiles again, and shared buffers would make two runners one."""
    for before, one, other in zip(*(bench().written(backend, program) for _ in range(3)), strict=True):
        assert one.function is not other.function
        # What the program calls and jax compiles by itself, such as `jnp.where`, is traced by whoever is first.
        positional, keywords = before.start().arguments
        before.function.trace(*positional, **keywords)
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
