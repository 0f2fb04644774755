"""Compare two runners by their times block by block: a ratio, its interval, and a claim or none."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.core.timings import FASTER, NO_DIFFERENCE, SLOWER, TOO_FEW, Ratio

CONFIDENCE_LEVEL = 0.99
"""Confidence level of every interval. At 95 %, one in twenty of some hundred ratios would be false."""

MIN_BLOCKS = math.ceil(math.log(2 / (1 - CONFIDENCE_LEVEL), 2))
"""Blocks that a claim needs: of fewer, all are on one side by chance more often than `CONFIDENCE_LEVEL` allows."""

QUARTILE, TRIMMED, RESAMPLES, BOOTSTRAP_SEED = 0.25, 0.2, 1999, 303
"""Quantile of the calls of a block, trimmed share of the blocks, bootstrap samples, and the seed of the bootstrap."""

MAX_LOG_RATIO = 600.0
"""Logarithm of a ratio that stands for no ratio, since a side is not positive."""

MAX_HALF_WIDTH = 0.02
"""Relative half-width of an interval at which measuring stops."""


def block_quartiles(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """One number per block: the lower quartile of its calls, which other processes disturb less than the median.

    Returns:
        Seconds, shape (blocks,).
    """
    return np.array([np.quantile(seconds, QUARTILE) for seconds in blocks])


def paired_ratio(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of two runners from their numbers block by block: a trimmed mean of logarithms.

    Args:
        numerators: seconds, shape (blocks,).
        denominators: seconds, of the same blocks.

    Returns:
        The ratio with its bootstrap interval; None where a time is not positive, so that there is no ratio.
    """
    if not len(numerators) or min(numerators.min(), denominators.min()) <= 0:
        return None
    return _bootstrap_ratio((np.log(numerators) - np.log(denominators),), _trimmed_mean)


def difference_ratio(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of two differences of times, which may be near zero, where a ratio per block has no meaning.

    Args:
        numerators: seconds, shape (blocks,).
        denominators: seconds, of the same blocks.

    Returns:
        The ratio of their trimmed means, blocks resampled; None where either cannot be distinguished from zero.
    """

    def ratio(over: np.ndarray, under: np.ndarray, axis: int = -1) -> np.ndarray:
        above, below = (_trimmed_mean(sample, axis) for sample in (over, under))
        small = np.finfo(float).tiny
        logs = np.log(np.maximum(above, small)) - np.log(np.maximum(below, small))
        return np.where((above > 0) & (below > 0), logs, np.where(below > 0, -MAX_LOG_RATIO, MAX_LOG_RATIO))

    return _bootstrap_ratio((numerators, denominators), ratio) if len(numerators) else None


def naive_ratio(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of the means of two runs that were timed one after the other, with its bootstrap interval."""

    def ratio(over: np.ndarray, under: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(np.mean(over, axis=axis)) - np.log(np.mean(under, axis=axis))

    return _bootstrap_ratio((numerators, denominators), ratio, together=False)


def _trimmed_mean(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    from scipy import stats  # takes as long to import as the rest of the command line

    return stats.trim_mean(sample, TRIMMED, axis=axis)


def _bootstrap_ratio(
    samples: tuple[np.ndarray, ...], log_ratio: Callable[..., Any], together: bool = True
) -> Ratio | None:
    """A ratio from its logarithm; None where its interval goes `MAX_LOG_RATIO`.

    Args:
        samples: what the logarithm is computed from.
        log_ratio: of the samples, along an axis.
        together: whether the samples are paired, block by block.
    """
    from scipy import stats

    value = float(log_ratio(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        low = high = value
    else:
        low, high = stats.bootstrap(
            samples,
            log_ratio,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE_LEVEL,
            method="percentile",
            paired=together,
            rng=np.random.default_rng(BOOTSTRAP_SEED),
        ).confidence_interval
    if max(map(abs, (value, low, high))) >= MAX_LOG_RATIO / 2:
        return None
    return Ratio(*(math.exp(number) for number in (value, low, high)))


def half_width(ratio: Ratio) -> float:
    """Half-width of an interval, relative to its middle."""
    return math.sqrt(ratio.high / ratio.low) - 1


def is_narrow(ratio: Ratio | None) -> bool:
    """Whether an interval is narrow enough to stop."""
    return ratio is not None and half_width(ratio) <= MAX_HALF_WIDTH


def claim(ratio: Ratio | None, control: Ratio | None, blocks: int) -> str:
    """The claim: slower or faster only where the interval excludes 1 by more than the control deviates from it.

    Args:
        ratio: candidate / reference.
        control: reference / reference, measured in the same blocks.
        blocks: number of blocks.
    """
    if ratio is None or control is None:
        return ""
    if blocks < MIN_BLOCKS:
        return TOO_FEW
    allowed = max(control.high, 1 / control.low, 1.0)
    if ratio.low > allowed:
        return SLOWER
    return FASTER if ratio.high < 1 / allowed else NO_DIFFERENCE
