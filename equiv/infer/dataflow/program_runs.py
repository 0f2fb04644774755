"""The gradients and the outputs of a port's program, on given leaves."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.compat import enable_x64
from equiv.infer.dataflow.quick_evaluation import evaluate_quickly
from equiv.programs.keep_casts import float_dtypes
from equiv.programs.program import Program
from equiv.programs.transform import DrawReplay, as_float64

HALF_PRECISION = ("bfloat16", "float16")
"""Dtypes with too few digits for half of float32's to be equal."""

LeafArrays = Mapping[int, np.ndarray]
"""Leaf, by its index among the program's inputs, to its values."""


def run_gradients(
    program: Program, arrays: LeafArrays, places: Sequence[int], batch: Mapping[str, np.ndarray]
) -> dict[int, np.ndarray]:
    """The gradients of a random projection of all outputs with respect to some leaves; in float64 of half precision.

    Args:
        program: the program.
        arrays: every leaf.
        places: the leaves whose gradients are returned.
        batch: entry to array.
    """
    given = _input_arrays(program, arrays, batch)
    # Two ports that round otherwise have no equal gradients in half precision.
    half = _is_half(program)
    run = partial(_run_in_float64, program) if half else jaxpr_as_fun(program.jaxpr)
    moved = [given[place] for place in places]

    def projected(moved: list[Any]) -> Any:
        inputs = list(given)
        for place, array in zip(places, moved, strict=True):
            inputs[place] = array
        outs = [out for out in run(*inputs) if jnp.issubdtype(out.dtype, jnp.inexact)]
        return sum(
            # Not the plain sum: that of a softmax or of a normalised
            # output is constant, with gradients of 0 everywhere.
            jnp.vdot(_random_projection(number, out.size), _sum_of_parts(out.reshape(-1)))
            for number, out in enumerate(outs)
        )

    with enable_x64(half):
        # Op by op: compiling the whole gradient would take longer than everything else.
        found = evaluate_quickly(jax.make_jaxpr(jax.grad(projected))(moved), moved)
    return dict(zip(places, found, strict=True))


def run_outputs(program: Program, arrays: LeafArrays, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs that are no whole numbers, as float64 or complex128; arguments as of `run_gradients`."""
    given, half = _input_arrays(program, arrays, batch), _is_half(program)
    with enable_x64(half):
        run = _run_in_float64(program, *given) if half else evaluate_quickly(program.jaxpr, given)
        floats = [np.asarray(out) for out in run if np.issubdtype(out.dtype, np.inexact)]
    return [one.astype("complex128" if np.iscomplexobj(one) else "float64") for one in floats]


def _is_half(program: Program) -> bool:
    return not float_dtypes(program).isdisjoint(HALF_PRECISION)


def _run_in_float64(program: Program, *arrays: Any) -> list[Any]:
    """Run a program, traced in its own dtypes, in float64; inside of `enable_x64(True)`."""
    return DrawReplay({}, float64=True).run(program.jaxpr, list(map(as_float64, arrays)))


def _input_arrays(program: Program, arrays: LeafArrays, batch: Mapping[str, np.ndarray]) -> list[Any]:
    """Every input: a leaf's array, else a batch entry, else one fixed key or zeros."""
    found: list[Any] = []
    for place, (name, aval) in enumerate(zip(program.inputs, program.jaxpr.in_avals, strict=True)):
        if place in arrays:
            found.append(arrays[place])
        elif name.kind == "batch":
            found.append(batch[name.path])
        elif jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
            found.append(jnp.broadcast_to(jax.random.key(0), aval.shape))
        else:
            found.append(np.zeros(aval.shape, aval.dtype))
    return found


def _sum_of_parts(array: Any) -> Any:
    """The real and the imaginary part of complex numbers together: each counts."""
    return array.real + array.imag if jnp.iscomplexobj(array) else array


def _random_projection(number: int, size: int) -> np.ndarray:
    return np.random.default_rng([number, size]).standard_normal(size).astype("float32")
