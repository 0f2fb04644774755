"""Probes: the variables and batches on which programs are run. Plain numpy; every leaf is random.

Default initialisation is no probe: its zeros and ones hide half of all swapped leaves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from equiv.core.batch_spec import COMPLEX_DTYPES, FLOAT_DTYPES, INEXACT_DTYPES, BatchEntry
from equiv.core.leaves import LeafSpec, LeafTable

NamedArrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """The inputs of one run of all programs.

    Attributes:
        name: `0`, `1` or `cold`.
        seed: seed of everything random in it, draws included.
        variables: canonical name to array, of the leaves that all ports share.
        batches: batch entry to array with one batch per train step on the first axis.
        late: number of steps that the counters of training have counted before each step; empty: they count on.
        kept: batch entries whose values are the case's own: no probe has others.
        tails: numbers in [0, 1) that every draw has among its own, as uniform numbers; empty: random bits only.
    """

    name: str
    seed: int
    variables: NamedArrays
    batches: NamedArrays
    late: tuple[int, ...] = ()
    tails: tuple[float, ...] = ()
    kept: frozenset[str] = frozenset()

    @property
    def free_batches(self) -> NamedArrays:
        """The batches whose values are not kept."""
        return {name: one for name, one in self.batches.items() if name not in self.kept}

    def vary_batches(self, function: Callable[[np.ndarray], np.ndarray]) -> NamedArrays:
        """The batches, with a function applied to every array whose values are not kept."""
        return self.batches | {name: function(one) for name, one in self.free_batches.items()}


def is_same_probe(one: Probe, other: Probe) -> bool:
    """Whether two probes have the same name and all the same values."""
    if replace(one, variables={}, batches={}) != replace(other, variables={}, batches={}):
        return False
    pairs = ((one.variables, other.variables), (one.batches, other.batches))
    return all(
        ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
        for ours, theirs in pairs
    )


def make_probe(
    name: str, seed: int, table: LeafTable, entries: Mapping[str, BatchEntry], steps: int, spread: float = 1.0
) -> Probe:
    """Make a probe: random values of every leaf that the libraries share, and one batch per train step.

    Args:
        name: the probe's name.
        seed: seed of everything random in it.
        table: the reference's leaf table.
        entries: the case's batch.
        steps: number of train steps.
        spread: factor on every parameter; below 1 for models that overflow.
    """
    rng = np.random.default_rng(seed)
    variables = {leaf.name: _random_leaf(rng, leaf.spec, spread) for leaf in table.leaves if not leaf.library_only}
    batches = {entry: _random_batch(rng, kind, steps) for entry, kind in entries.items()}
    kept = {entry: kind.kept for entry, kind in entries.items() if kind.kept is not None}
    batches |= {entry: np.repeat(values[None], steps, axis=0) for entry, values in kept.items()}
    return Probe(name, seed, variables, batches, kept=frozenset(kept))


def _random_leaf(rng: np.random.Generator, spec: LeafSpec, spread: float) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype in COMPLEX_DTYPES:
        part = replace(spec, dtype=_part_dtype(spec.dtype))
        return (_random_leaf(rng, part, spread) + 1j * _random_leaf(rng, part, spread)).astype(dtype)
    if spec.dtype not in FLOAT_DTYPES:
        return rng.integers(3, 9, size=spec.shape).astype(dtype)
    if spec.collection == "state":
        # Positive, as a running variance must be; not 1, the value that libraries initialise it to.
        return rng.uniform(0.3, 2.0, size=spec.shape).astype(dtype)
    # Not centred, so that signs and transposes show; a kernel's gain is below one, so that deep models do not overflow.
    inputs = 1.0 if len(spec.shape) < 2 else float(spec.shape[-2])
    return (spread * (0.3 / inputs + 0.8 * inputs**-0.5 * rng.normal(size=spec.shape))).astype(dtype)


def _random_batch(rng: np.random.Generator, entry: BatchEntry, steps: int) -> np.ndarray:
    shape, dtype = (steps, *entry.spec.shape), numpy_dtype(entry.spec.dtype)
    if entry.spec.dtype in COMPLEX_DTYPES:
        return (rng.normal(0.25, 1.0, size=shape) + 1j * rng.normal(0.25, 1.0, size=shape)).astype(dtype)
    if entry.spec.dtype in FLOAT_DTYPES:
        return rng.normal(0.25, 1.0, size=shape).astype(dtype)
    return rng.integers(0, max(entry.bound, 1), size=shape).astype(dtype)


def numpy_dtype(name: str) -> np.dtype:
    """A numpy dtype, bfloat16 included (ml_dtypes, which jax brings)."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _part_dtype(name: str) -> str:
    """The dtype of the real and of the imaginary part of complex numbers."""
    return np.finfo(name).dtype.name


def ulp(dtype: np.dtype) -> float:
    """The spacing of floats around 1 in a dtype; of complex numbers that of their parts."""
    return float(ml_dtypes.finfo(dtype).eps)


def widen_array(array: np.ndarray) -> np.ndarray:
    """Convert to float64, complex numbers to complex128."""
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")


def split_parts(array: np.ndarray) -> list[np.ndarray]:
    """The real and the imaginary parts of complex numbers; of others these alone."""
    return [np.real(array), np.imag(array)] if np.iscomplexobj(array) else [array]


def perturb_by_ulp(probe: Probe, seed: int, dtype: str | None = None) -> Probe:
    """Return the probe with every float moved by one ulp, up or down at random, to measure the effect of rounding.

    Args:
        probe: the probe.
        seed: seed of the directions.
        dtype: dtype that defines the ulp; None: each array's own dtype.
    """
    rng = np.random.default_rng((probe.seed, seed))

    def perturb(array: np.ndarray) -> np.ndarray:
        if str(array.dtype) not in INEXACT_DTYPES:
            return array
        size = ulp(np.dtype(dtype) if dtype else array.dtype)
        signs = _random_signs(rng, array.shape)
        if array.dtype.kind == "c":
            signs = signs + 1j * _random_signs(rng, array.shape)
        moved = widen_array(array) * (1 + size * signs)
        return moved if dtype == "float64" else moved.astype(array.dtype)

    return replace(
        probe,
        variables={name: perturb(array) for name, array in probe.variables.items()},
        batches=probe.vary_batches(perturb),
    )


def _random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2 * rng.integers(0, 2, size=shape, dtype=np.int8) - 1


def to_float64(arrays: Mapping[str, np.ndarray]) -> NamedArrays:
    """Convert every float array to float64, and complex ones to complex128, for a float64 program.

    What needs no conversion is not copied.
    """
    narrow = set(INEXACT_DTYPES) - {"float64", "complex128"}
    return {name: widen_array(array) if str(array.dtype) in narrow else array for name, array in arrays.items()}


def add_library_only_leaves(table: LeafTable, variables: Mapping[str, np.ndarray]) -> NamedArrays:
    """Add to the shared leaves those that only this library has, with the values to which their formulas converge."""
    filled = dict(variables)
    for leaf in table.leaves:
        if leaf.name in filled:
            continue
        if leaf.mirrors is not None:
            filled[leaf.name] = variables[leaf.mirrors]
        elif leaf.fixed_value is not None:
            filled[leaf.name] = np.full(leaf.spec.shape, leaf.fixed_value, leaf.spec.dtype)
    return filled
