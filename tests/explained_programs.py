"""Programs of two functions in float64, and what a search for causes finds of them: used by the tests of causes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from named import input_named, make_program

from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.search import SearchResult, find_divergences
from equiv.compat import enable_x64

RNG = np.random.default_rng(0)
SHAPES = {"a.w": (6, 6), "b.w": (6, 6), "a.b": (6,), "b.b": (6,), "batch/x": (4, 6)}


def given(seed: int, nudge: float = 0.0) -> dict:
    """Inputs of one probe; moved by an ulp, up and down."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0.2, 0.8, shape) for name, shape in SHAPES.items()}
    signs = {name: 2 * rng.integers(0, 2, shape) - 1 for name, shape in SHAPES.items()}
    return {input_named(name): array * (1 + nudge * signs[name]) for name, array in arrays.items()}


def runs_of(left: Callable, right: Callable) -> ProgramRuns:
    """Two functions of a dict of inputs, in float64."""
    with enable_x64(True):
        programs = [
            make_program(
                "f",
                jax.make_jaxpr(lambda *arrays, function=function: function(dict(zip(SHAPES, arrays, strict=True))))(
                    *(jax.ShapeDtypeStruct(shape, "float64") for shape in SHAPES.values())
                ),
                tuple(SHAPES),
                ("output",),
            )
            for function in (left, right)
        ]
    inputs, nudged = ([(given(seed, nudge),) * 2 for seed in (1, 2)] for nudge in (0.0, 2.2e-16))
    return ProgramRuns(*programs, ("haiku", "nnx"), inputs, nudged, programs[0].outputs)


def search(left: Callable, right: Callable) -> SearchResult:
    """What is found of two functions."""
    runs = runs_of(left, right)
    with enable_x64(True):
        return find_divergences(runs)


def tried(left: Callable, right: Callable) -> list[str]:
    """The causes that make both the same, and those that leave an error."""
    found = search(left, right).divergences
    return [cause.trial.text + ("" if cause.within else " (part)") for one in found for cause in one.causes]


def norm(x: jax.Array, eps: float = 1e-3, fast: bool = False) -> jax.Array:
    """Normalised over the last axis; fast: by the mean of squares."""
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean**2 if fast else ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + eps)


def model(p: dict, eps: float = 1e-3, bend: Callable = jnp.tanh, fast: bool = False) -> jax.Array:
    """Dense, norm, bent, beside a residual, dense."""
    y = bend(norm(p["batch/x"] @ p["a.w"] + p["a.b"], eps, fast))
    return (p["batch/x"] + y) @ p["b.w"] + p["b.b"]


def scanned(p: dict, start: float = 0.0, reverse: bool = False) -> jax.Array:
    """A loop over the rows of x."""

    def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.tanh(row @ p["a.w"] + carry @ p["b.w"])
        return carry, carry

    return jax.lax.scan(step, jnp.full(6, start), p["batch/x"], reverse=reverse)[1]


def other(**changed: object) -> Callable:
    """The model with something else in it."""
    return lambda p: model(p, **changed)
