"""The smallest reproduction of a difference: short, alone, different, and the same once what is guilty is replaced."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explained_programs import model, runs_of
from jax import lax
from repro_models import SMALL_FAULTS, SmallFault, mend_script, reproduce_fault

from equiv.comparison.explain.reproduction.repro_file import MOST_LINES, shorten_lines, write_script
from equiv.comparison.explain.reproduction.reproduce import Reproduction, make_function, reproduce_difference
from equiv.comparison.explain.reproduction.writer import CodeWriter
from equiv.compat import enable_x64
from equiv.errors import EquivError

ALONE = """
import importlib.abc, runpy, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("equiv", "haiku", "flax", "optax"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a file where equiv, haiku and flax cannot be imported."""


def run_alone(path: Path) -> tuple[int, str]:
    """Run a file in a Python of its own: its exit code, and what it prints."""
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, path], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def write_files(made: Reproduction, folder: Path, change: Callable[[str], str] = str) -> Path:
    """Write both files of a reproduction, the code changed."""
    np.savez(folder / "repro.npz", allow_pickle=False, **made.functions.arrays)
    path = folder / "repro.py"
    path.write_text(change(write_script(made, "A difference.")))
    return path


@pytest.mark.quick(2)
@pytest.mark.parametrize("fault", SMALL_FAULTS, ids=lambda fault: fault.name)
def test_a_reproduction_shows_the_fault_alone(fault: SmallFault, tmp_path: Path):
    path = write_files(reproduce_fault(fault), tmp_path)
    assert len(path.read_text().splitlines()) <= MOST_LINES
    code, said = run_alone(path)
    assert (code, said.splitlines()[-1]) == (1, "different")
    assert said.startswith("haiku ")


@pytest.mark.quick(2)
@pytest.mark.parametrize("fault", SMALL_FAULTS, ids=lambda fault: fault.name)
def test_a_reproduction_without_the_guilty_operation_is_the_same(fault: SmallFault, tmp_path: Path):
    code, said = run_alone(write_files(reproduce_fault(fault), tmp_path, lambda text: mend_script(text, fault)))
    assert (code, said.splitlines()[-1]) == (0, "same")


@pytest.mark.parametrize("fault", SMALL_FAULTS, ids=lambda fault: fault.name)
def test_a_reproduction_has_few_operations_and_small_arrays(fault: SmallFault):
    made = reproduce_fault(fault)
    assert max(made.operations) <= 8
    assert max(array.size for array in made.functions.arrays.values()) <= 25


def test_two_programs_that_agree_are_not_reproduced():
    with enable_x64(True), pytest.raises(EquivError, match="not there in float64 on the probes"):
        reproduce_difference(runs_of(model, lambda p: model(p, fast=True)))


def test_of_two_faults_one_is_reproduced():
    with enable_x64(True):
        made = reproduce_difference(runs_of(model, lambda p: model(p, eps=1e-2, bend=jnp.sin)), several=True)
    assert max(made.operations) == 1


def bent(p: dict) -> jax.Array:
    return jnp.tanh(p["batch/x"] @ p["a.w"]) @ p["b.w"]


def bent_otherwise(p: dict) -> jax.Array:
    """The same from the transposed product, with a fault in that."""
    product = p["a.w"].T @ p["batch/x"].T + 0.1
    return jnp.tanh(product.T) @ p["b.w"]


def test_arrays_made_of_each_other_are_cut_together():
    """What one side is given and the other computes stays equal: without what is guilty both are the same."""
    with enable_x64(True):
        made = reproduce_difference(runs_of(bent, bent_otherwise))
        text = made.functions.text.replace("+ 0.1", "+ 0.0")
        assert text.count("@") == 1
        ours, theirs = (make_function(text, name)(made.functions.arrays) for name in ("reference", "candidate"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_reversed_loop_is_shown_as_a_whole():
    def scan(p: dict, reverse: bool = False) -> jax.Array:
        def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            carry = jnp.tanh(row @ p["a.w"] + carry @ p["b.w"])
            return carry, carry

        return lax.scan(step, jnp.zeros(6), p["batch/x"], reverse=reverse)[1]

    with enable_x64(True):
        made = reproduce_difference(runs_of(scan, lambda p: scan(p, reverse=True)))
        text = made.functions.text
        assert text.count("lax.scan(") == 2
        ours, theirs = (
            make_function(text.replace(", reverse=True", ""), name)(made.functions.arrays)
            for name in ("reference", "candidate")
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_key_is_said_in_words():
    def draws(p: dict) -> jax.Array:
        bits = jax.random.uniform(jax.random.key(3), (4, 6), dtype="float64")
        return p["batch/x"] * bits

    with enable_x64(True):
        runs = runs_of(draws, lambda p: draws(p) + 1.0)
        made = reproduce_difference(runs)
        assert "random" not in made.functions.text
        with pytest.raises(EquivError, match=r"a key of jax\.random cannot be kept"):
            CodeWriter(str).constant(jax.random.key(0))


def scanned(x: jax.Array) -> jax.Array:
    def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.tanh(row + 0.5 * carry)
        return carry, 2.0 * carry

    last, rows = lax.scan(step, x[0], x, reverse=True)
    return rows + last


def pooled(x: jax.Array) -> jax.Array:
    most = lax.reduce_window(x[None, ..., None], -jnp.inf, lax.max, (1, 2, 3, 1), (1, 1, 2, 1), "SAME")
    return most + lax.reduce_window(x[None, ..., None], 0.0, lax.add, (1, 2, 3, 1), (1, 1, 2, 1), "SAME")


def convolved(x: jax.Array) -> jax.Array:
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    dimensions = ("NHWC", "HWIO", "NHWC")
    one = lax.conv_general_dilated(x[None, ..., None], kernel, (1, 2), ((1, 1), (2, 1)), (2, 1), (1, 1), dimensions)
    return jnp.concatenate([one, jnp.flip(one, 1)], axis=-1)


def looked_up(x: jax.Array) -> jax.Array:
    places = jnp.argsort(x[:, 0])
    return x[places] + jnp.take(x, places, axis=0) + x.at[places[:2], 1:3].add(3.0) + x.at[places[0]].set(-1.0)


WRITTEN = {
    "elements": lambda x: jnp.where(x > 0.2, -x, x**3) / (1.5 - x) + jnp.exp2(x) * lax.rsqrt(jnp.abs(x) + 2.0),
    "softmax": lambda x: jax.nn.softmax(x, 0) + jax.nn.log_softmax(x, 1),
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.gelu(x, approximate=False) + jax.nn.silu(x) + jax.nn.elu(x),
    "products": lambda x: jnp.einsum("ab,cb->ca", x, x) @ x + jnp.einsum("ab,ab->b", x, x) + (x.T @ x)[0],
    "batches": lambda x: jnp.einsum("abc,abd->acd", x.reshape(2, 2, 5), x.reshape(2, 2, 5)),
    "integers": lambda x: jnp.arange(5) // 2 * (x > 0).sum(1, keepdims=True) % 3 + jnp.argmax(x, 1)[:, None],
    "moves": lambda x: jnp.pad(x, ((1, 2), (0, 1)), constant_values=0.5)[1:5, ::2].T.reshape(4, 3) + x[:4, :3],
    "sums": lambda x: jnp.cumsum(x, 1) + lax.cumlogsumexp(x, 0, reverse=True) + x.prod(0) + x.min() + jnp.sort(x, 0),
    "masks": lambda x: jnp.where(jnp.tri(4, 5, dtype=bool) & ~(x > 1.0), x, -1e9).max(1),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5) + jnp.round(x, 1) + jnp.maximum(x, 0.0) + jnp.floor(x) + x % 0.7,
    "columns": lambda x: sum(jnp.split(x, [1, 2], axis=1)[0]) + lax.top_k(x, 2)[0][0, 0],
    "dynamic": lambda x: lax.dynamic_slice(x, (jnp.argmax(x[:, 0]) - 1, 1), (2, 3)),
    "scan": scanned,
    "pooling": pooled,
    "convolution": convolved,
    "lookup": looked_up,
    "gradient": jax.grad(lambda x: (jax.nn.softmax(jnp.tanh(x), 1) ** 2).sum()),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_code_computes_what_the_program_does(name: str):
    function, x = WRITTEN[name], np.random.default_rng(0).normal(size=(4, 5))
    kept: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray) -> str:
        kept[f"c{len(kept)}"] = array
        return f'data["c{len(kept) - 1}"]'

    with enable_x64(True):
        closed = jax.make_jaxpr(function)(x)
        writer = CodeWriter(keep)
        (out,) = writer.run(closed, [writer.given("x", (4, 5), "float64")])
        text = "\n".join(["def f(x):", *writer.lines, f"    return {out.text}"])
        wanted = np.asarray(function(jnp.asarray(x)))
        for code in (text, shorten_lines(text)):
            found = np.asarray(make_function(code, "f")({"x": x} | kept))
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=code)
            assert found.dtype == wanted.dtype


def test_what_has_no_code_is_said_in_words():
    with enable_x64(True):
        closed = jax.make_jaxpr(jnp.linalg.cholesky)(np.eye(3))
        writer = CodeWriter(str)
        with pytest.raises(EquivError, match=r"the operation cholesky cannot be written with jax\.numpy"):
            writer.run(closed, [writer.given("x", (3, 3), "float64")])
