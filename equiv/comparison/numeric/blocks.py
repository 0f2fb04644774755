"""Responses to rounding by blocks of like scale, measured from a few runs; see `equiv.core.budget`. NumPy only."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import BUDGET_RISK, Responses, rounding_response, sampling_level
from equiv.programs.probes import ulp, widen_array

UNMOVED_SAMPLES = math.ceil(-math.log2(BUDGET_RISK))
"""So many responses of zero say that a block does not move: an element that does may stay where it is half the time."""

MOST_SCALED = 1000
"""Largest power of two that a response is scaled by: more overflows, and excludes nothing."""

CHUNK = 2**15
"""Number of elements that are measured at once: ten arrays of them in float64 stay in the cache of a core."""

LARGEST_FLOAT = float(np.finfo("float64").max)
"""No budget is larger."""

ZERO_EXPONENT = -(2**15)
"""The exponent of zero, below that of every number."""


def measure_blocks(base: np.ndarray, moved: Sequence[np.ndarray]) -> Responses:
    """Measure the responses of one output.

    Args:
        base: the output, of a float dtype, or of complex numbers, whose size is their absolute value.
        moved: the same output of runs with every input moved by one ulp.
    """
    return BlockTally().add(base, moved).responses


def _finite_change(base: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The absolute difference; 0 where it is not finite: that is refuted later, if it differs between the ports."""
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(base - moved)
    return change if np.isfinite(np.max(change, initial=0.0)) else np.where(np.isfinite(change), change, 0.0)


@dataclass(frozen=True)
class BlockSamples:
    """The responses of one block or of several: what bounds their condition.

    Attributes:
        count: number of responses.
        top: the largest.
        second: sum of their squares, over that of the largest.
        fourth: sum of their fourth powers, likewise.
    """

    count: int = 0
    top: float = 0.0
    second: float = 0.0
    fourth: float = 0.0

    def join(self, other: "BlockSamples", scale: float = 1.0) -> "BlockSamples":
        """Join both, with those of `self` times `scale`."""
        top = max(self.top * scale, other.top)
        ours, theirs = ((self.top * scale / top) ** 2, (other.top / top) ** 2) if top else (0.0, 0.0)
        return BlockSamples(
            self.count + other.count,
            top,
            self.second * ours + other.second * theirs,
            self.fourth * ours**2 + other.fourth * theirs**2,
        )

    @property
    def bound(self) -> float:
        """Which condition they exclude; infinite where they are too few to exclude any."""
        if not self.top:
            return 0.0 if self.count >= UNMOVED_SAMPLES else math.inf
        return self.top * sampling_level(self.second**2 / self.fourth)


@dataclass(frozen=True)
class BlockTally:
    """The responses of one output, of which one part was measured after the other.

    Attributes:
        largest: the largest change.
        size: the largest finite magnitude of the output.
        ulp: of its dtype.
        blocks: exponent to the responses of its block; zeros have `ZERO_EXPONENT`.
    """

    largest: float = 0.0
    size: float = 0.0
    ulp: float = 0.0
    blocks: Mapping[int, BlockSamples] = field(default_factory=dict)

    def add(self, base: np.ndarray, moved: Sequence[np.ndarray]) -> "BlockTally":
        """Add a part; arguments as of `measure_blocks`."""
        tally = self
        for chunk, *changed in split_arrays((base, *moved)):
            tally = tally._add_chunk(chunk, changed)
        return tally

    def _add_chunk(self, base: np.ndarray, moved: Sequence[np.ndarray]) -> "BlockTally":
        wide = widen_array(base)
        known = np.isfinite(wide)
        if not known.any():
            return self
        # Most outputs are finite everywhere, and then nothing is copied.
        chosen = slice(None) if known.all() else known
        wide = wide[chosen]
        sizes = np.abs(wide)
        moves = [_finite_change(wide, one[chosen]) for one in moved] or [np.zeros_like(sizes)]
        exponents = magnitude_exponents(sizes)
        present = np.flatnonzero(np.bincount(exponents - ZERO_EXPONENT)) + ZERO_EXPONENT
        places = _block_of(exponents, present[present != ZERO_EXPONENT])
        if present[0] == ZERO_EXPONENT:
            places = np.where(exponents == ZERO_EXPONENT, 0, places + 1)
        found = dict(self.blocks)
        for exponent, one in zip(present.tolist(), _block_samples(moves, places, present.size), strict=True):
            found[exponent] = found[exponent].join(one) if exponent in found else one
        largest = max(float(np.max(one, initial=0.0)) for one in moves)
        size = float(np.max(sizes, initial=0.0))
        return BlockTally(max(self.largest, largest), max(self.size, size), ulp(base.dtype), found)

    @property
    def responses(self) -> Responses:
        """The responses of all parts together."""
        present, samples = self._by_exponent()
        whole = rounding_response(self.largest, self.ulp, self.size)
        blocks = (min(whole, bound) for bound in _block_bounds(present, samples))
        return Responses(self.largest, present, tuple(blocks))

    @property
    def observed(self) -> Responses:
        """The largest responses as they are: after more runs none of `responses` is smaller than these."""
        present, samples = self._by_exponent()
        return Responses(self.largest, present, tuple(one.top for one in samples))

    def _by_exponent(self) -> tuple[tuple[int, ...], list[BlockSamples]]:
        """The exponents of blocks that are not zero, and their responses; those of zeros are in the first."""
        present = sorted(one for one in self.blocks if one != ZERO_EXPONENT)
        samples = [self.blocks[one] for one in present]
        if samples and ZERO_EXPONENT in self.blocks:
            samples[0] = self.blocks[ZERO_EXPONENT].join(samples[0])
        return tuple(present), samples


def _block_samples(moves: Sequence[np.ndarray], places: np.ndarray, blocks: int) -> Iterator[BlockSamples]:
    tops = np.zeros(blocks)
    for one in moves:
        np.maximum.at(tops, places, one)
    scale = np.where(tops > 0, tops, 1.0)[places]
    squares, fourths = np.zeros(scale.shape), np.zeros(scale.shape)
    for one in moves:
        square = one / scale
        square *= square
        squares += square
        square *= square
        fourths += square
    counts = np.bincount(places, minlength=blocks) * len(moves)
    second, fourth = (np.bincount(places, weights, blocks) for weights in (squares, fourths))
    for count, top, two, four in zip(counts, tops, second, fourth, strict=True):
        yield BlockSamples(int(count), float(top), float(two), float(four))


def _block_bounds(exponents: Sequence[int], blocks: Sequence[BlockSamples]) -> Iterator[float]:
    """Yield for each block the smallest bound of all runs of blocks that begin or end with it."""
    for index, own in enumerate(blocks):
        bound, joined = own.bound, own
        # No bound is below its largest response, and that only grows as blocks are joined.
        for above in blocks[index + 1 :]:
            if joined.top >= bound:
                break
            joined = joined.join(above)
            bound = min(bound, joined.bound)
        joined = own
        for lower in reversed(range(index)):
            if joined.top >= bound:
                break
            # As large as they would be at the magnitude of this block.
            scale = min(MOST_SCALED, exponents[index] - exponents[lower])
            joined = blocks[lower].join(joined, 2.0**scale)
            bound = min(bound, joined.bound)
        yield bound


def element_responses(known: Responses, array: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Look up the response of every element.

    Args:
        known: the responses of its output.
        array: the output, or a part of it, of a float dtype.
        largest: the largest finite magnitude of the whole output; None: the array is the whole.

    Returns:
        Float64, of the array's shape; finite, also where the array is not.
    """
    largest = largest_finite(array) if largest is None else largest
    whole = rounding_response(known.largest, ulp(array.dtype), largest)
    if not known.exponents:
        return np.full(array.shape, whole)
    # Looked up in a table: a search for every element takes several times as long.
    first, table = response_table(known)
    last = known.exponents[-1]
    found = [np.empty(0)]
    for (chunk,) in split_arrays((array,)):
        wide = np.abs(widen_array(chunk))
        wide = np.where(np.isfinite(wide), wide, 0.0)
        responses = table[np.clip(magnitude_exponents(wide), first, last) - first]
        found.append(np.minimum(whole, np.maximum(responses, smallest_responses(array.dtype, wide))))
    return np.concatenate(found).reshape(array.shape)


def response_table(known: Responses) -> tuple[int, np.ndarray]:
    """The smallest exponent of responses by blocks, and the response of it and of each one after it."""
    first, last = known.exponents[0], known.exponents[-1]
    return first, np.array(known.blocks)[_block_of(np.arange(first, last + 1), np.array(known.exponents))]


def finite_difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The absolute difference of two float64 or complex128 arrays, 0 where both have one value that is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(equal_values(one, other), 0.0, np.abs(one - other))


def largest_finite(array: np.ndarray) -> float:
    """The largest magnitude that is finite; 0 where there is none."""
    if (largest := _largest_where_all_finite(array)) is not None:
        return largest
    wide = (np.abs(widen_array(chunk)) for (chunk,) in split_arrays((array,)))
    return max((float(np.max(one, initial=0.0, where=np.isfinite(one))) for one in wide), default=0.0)


def count_nonfinite_values(array: np.ndarray) -> int:
    """The number of values that are not finite."""
    return 0 if _largest_where_all_finite(array) is not None else int(np.sum(~np.isfinite(array)))


SIGN_MASKS = {2: np.uint16(0x7FFF), 4: np.uint32(0x7FFF_FFFF), 8: np.uint64(0x7FFF_FFFF_FFFF_FFFF)}
"""Size of a real number in bytes to what leaves out its sign. Without it, larger numbers have larger bits: infinity has
more than every finite number, and NaN more than infinity."""


def _largest_where_all_finite(array: np.ndarray) -> float | None:
    """The largest magnitude of a real array, in one pass over its bits; None: it has values that are not finite."""
    if str(array.dtype) not in FLOAT_DTYPES or not array.size or not array.flags.c_contiguous:
        return None
    mask = SIGN_MASKS[array.dtype.itemsize]
    bits = max(np.max(chunk & mask) for (chunk,) in split_arrays((array.view(mask.dtype),)))
    largest = float(np.array([bits], mask.dtype).view(array.dtype)[0])
    return largest if math.isfinite(largest) else None


def split_arrays(arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield the elements of arrays of one size in order, `CHUNK` of them at a time: copies of a chunk are small."""
    flat = [one.ravel() for one in arrays]
    for first in range(0, flat[0].size, CHUNK):
        yield [one[first : first + CHUNK] for one in flat]


def equal_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two arrays have the same value, NaN and infinities included."""
    return (one == other) | (np.isnan(one) & np.isnan(other))


def magnitude_exponents(array: np.ndarray) -> np.ndarray:
    """The exponent e of every magnitude in [2^(e - 1), 2^e); of finite float64 numbers."""
    fields = (array.view(np.int64) >> 52) & 0x7FF  # of binary64: biased by 1023, for magnitudes in [1, 2)
    exponents = fields - 1022
    if not fields.all():
        small = fields == 0  # zeros, and numbers below the smallest normal one
        exponents[small] = np.where(array[small] == 0, ZERO_EXPONENT, np.frexp(array[small])[1])
    return exponents


def smallest_responses(dtype: np.dtype, array: np.ndarray) -> np.ndarray:
    """What storing an element rounds: an ulp of it, and what is flushed to zero."""
    return np.maximum(ulp(dtype) * np.abs(array), float(ml_dtypes.finfo(dtype).tiny))


def _block_of(exponents: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The number of the block with each exponent; of the next larger one where there is none."""
    if not present.size:
        return np.zeros(exponents.shape, int)
    # Looked up in a table: a search for every element takes several times as long.
    first, last = int(present[0]), int(present[-1])
    table = np.searchsorted(present, np.arange(first, last + 1))
    return table[np.clip(exponents, first, last) - first]
