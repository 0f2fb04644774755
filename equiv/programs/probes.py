"""Probes: the variables and batches on which programs are run. Plain numpy; every leaf is randomised.

Fresh initialisation is no probe: its zeros and ones hide half of all swapped leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from equiv.core.batch_spec import FLOATS, Entry
from equiv.core.leaves import LeafSpec, LeafTable

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """What programs are run on.

    Attributes:
        name: `0`, `1` or `cold`.
        seed: of everything random in it, draws included.
        variables: canonical name to array, of the leaves that all ports share.
        batches: batch entry to array with one batch per train step on the first axis.
    """

    name: str
    seed: int
    variables: Arrays
    batches: Arrays


def make_probe(
    name: str, seed: int, table: LeafTable, entries: Mapping[str, Entry], steps: int, spread: float = 1.0
) -> Probe:
    """A probe for every leaf that the reference shares with the others, and one batch per train step.

    Args:
        name: the probe's name.
        seed: of everything random in it.
        table: the reference's leaf table.
        entries: the case's batch.
        steps: number of train steps.
        spread: factor on every parameter; below 1 for models that overflow.
    """
    rng = np.random.default_rng(seed)
    variables = {leaf.name: _leaf(rng, leaf.spec, spread) for leaf in table.leaves if not leaf.own}
    batches = {entry: _entry(rng, kind, steps) for entry, kind in entries.items()}
    return Probe(name, seed, variables, batches)


def _leaf(rng: np.random.Generator, spec: LeafSpec, spread: float) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype not in FLOATS:
        return rng.integers(3, 9, size=spec.shape).astype(dtype)
    if spec.collection == "state":
        # Positive, since a running variance has to be; apart from 1, which is what libraries start from.
        return rng.uniform(0.3, 2.0, size=spec.shape).astype(dtype)
    # Not centred, so that signs and transposes show; a kernel's gain is below one, so that deep models do not overflow.
    inputs = 1.0 if len(spec.shape) < 2 else float(spec.shape[-2])
    return (spread * (0.3 / inputs + 0.8 * inputs**-0.5 * rng.normal(size=spec.shape))).astype(dtype)


def _entry(rng: np.random.Generator, entry: Entry, steps: int) -> np.ndarray:
    shape, dtype = (steps, *entry.spec.shape), numpy_dtype(entry.spec.dtype)
    if entry.spec.dtype in FLOATS:
        return rng.normal(0.25, 1.0, size=shape).astype(dtype)
    return rng.integers(0, entry.bound, size=shape).astype(dtype)


def numpy_dtype(name: str) -> np.dtype:
    """A numpy dtype, bfloat16 included (ml_dtypes, which jax brings)."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def ulp(dtype: np.dtype) -> float:
    """The spacing of floats around 1 in a dtype."""
    return float(ml_dtypes.finfo(dtype).eps)


def nudged(probe: Probe, seed: int, dtype: str | None = None) -> Probe:
    """The probe with every float moved by one ulp, up or down at random: how much rounding of the inputs matters.

    Args:
        probe: the probe.
        seed: of the directions.
        dtype: whose ulp; None: of each array's own dtype.
    """
    rng = np.random.default_rng((probe.seed, seed))

    def nudge(array: np.ndarray) -> np.ndarray:
        if str(array.dtype) not in FLOATS:
            return array
        size = ulp(np.dtype(dtype) if dtype else array.dtype)
        signs = 2 * rng.integers(0, 2, size=array.shape, dtype=np.int8) - 1
        moved = array.astype("float64") * (1 + size * signs)
        return moved.astype("float64" if dtype == "float64" else array.dtype)

    return replace(
        probe,
        variables={name: nudge(array) for name, array in probe.variables.items()},
        batches={name: nudge(array) for name, array in probe.batches.items()},
    )


def widened(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Every float as float64, as a lifted program takes it."""
    return {name: array.astype("float64") if str(array.dtype) in FLOATS else array for name, array in arrays.items()}


def with_own(table: LeafTable, variables: Mapping[str, np.ndarray]) -> Arrays:
    """All leaves of a port: the shared ones, and those that only this library has, where its own formula settles."""
    filled = dict(variables)
    for leaf in table.leaves:
        if leaf.name in filled:
            continue
        if leaf.copies is not None:
            filled[leaf.name] = variables[leaf.copies]
        elif leaf.constant is not None:
            filled[leaf.name] = np.full(leaf.spec.shape, leaf.constant, leaf.spec.dtype)
    return filled
