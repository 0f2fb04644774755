"""What may be said of two runners from their times block by block: a ratio, its interval, and a claim or none."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from equiv.core.timings import FASTER, NO_DIFFERENCE, SLOWER, TOO_FEW, Ratio

LEVEL = 0.99
"""Of every interval. At 95 %, one in twenty of some hundred ratios would be false."""


FEWEST = math.ceil(math.log(2 / (1 - LEVEL), 2))
"""Blocks without which nothing is claimed: of fewer, all fall on one side by chance more often than `LEVEL` allows."""


QUARTILE, TRIMMED, RESAMPLES, SEED = 0.25, 0.2, 1999, 303
"""Calls of a block to one number, blocks to one number, bootstrap samples, and the seed of the bootstrap."""


BEYOND = 600.0
"""The logarithm of a ratio that is none, since a side is not positive."""


NARROW = 0.02
"""Half-width of an interval, relative, at which measuring stops."""


def typical(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """One number per block: the lower quartile of its calls, which a busy neighbour moves less than the median.

    Returns:
        Seconds, shape (blocks,).
    """
    return np.array([np.quantile(seconds, QUARTILE) for seconds in blocks])


def paired(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of two runners from their numbers block by block: a trimmed mean of logarithms.

    Args:
        numerators: seconds, shape (blocks,).
        denominators: seconds, of the same blocks.

    Returns:
        The ratio with its bootstrap interval; None where a time is not positive, so that there is no ratio.
    """
    if not len(numerators) or min(numerators.min(), denominators.min()) <= 0:
        return None
    return _bootstrapped((np.log(numerators) - np.log(denominators),), _centre)


def of_differences(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of two differences of times, which may come near zero, where a ratio block by block has no meaning.

    Args:
        numerators: seconds, shape (blocks,).
        denominators: seconds, of the same blocks.

    Returns:
        The ratio of their trimmed means, blocks resampled; None where either cannot be told from zero.
    """

    def ratio(over: np.ndarray, under: np.ndarray, axis: int = -1) -> np.ndarray:
        above, below = (_centre(sample, axis) for sample in (over, under))
        small = np.finfo(float).tiny
        logs = np.log(np.maximum(above, small)) - np.log(np.maximum(below, small))
        return np.where((above > 0) & (below > 0), logs, np.where(below > 0, -BEYOND, BEYOND))

    return _bootstrapped((numerators, denominators), ratio) if len(numerators) else None


def naive(numerators: np.ndarray, denominators: np.ndarray) -> Ratio | None:
    """The ratio of the means of two runs that were timed one after the other, with its bootstrap interval."""

    def ratio(over: np.ndarray, under: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.log(np.mean(over, axis=axis)) - np.log(np.mean(under, axis=axis))

    return _bootstrapped((numerators, denominators), ratio, together=False)


def _centre(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    from scipy import stats  # takes as long to import as the rest of the command line

    return stats.trim_mean(sample, TRIMMED, axis=axis)


def _bootstrapped(
    samples: tuple[np.ndarray, ...], log_ratio: Callable[..., Any], together: bool = True
) -> Ratio | None:
    """A ratio from its logarithm; None where its interval goes `BEYOND`.

    Args:
        samples: what the logarithm is computed from.
        log_ratio: of the samples, along an axis.
        together: whether the samples belong together, block by block.
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
            confidence_level=LEVEL,
            method="percentile",
            paired=together,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    if max(map(abs, (value, low, high))) >= BEYOND / 2:
        return None
    return Ratio(*(math.exp(number) for number in (value, low, high)))


def half_width(ratio: Ratio) -> float:
    """Of an interval, relative to its middle."""
    return math.sqrt(ratio.high / ratio.low) - 1


def narrow(ratio: Ratio | None) -> bool:
    """Whether more blocks are not needed."""
    return ratio is not None and half_width(ratio) <= NARROW


def claim(ratio: Ratio | None, control: Ratio | None, blocks: int) -> str:
    """What may be said: slower or faster only where the interval excludes 1 by more than the control strays from it.

    Args:
        ratio: candidate / reference.
        control: reference / reference, measured in the same blocks.
        blocks: how many.
    """
    if ratio is None or control is None:
        return ""
    if blocks < FEWEST:
        return TOO_FEW
    allowed = max(control.high, 1 / control.low, 1.0)
    if ratio.low > allowed:
        return SLOWER
    return FASTER if ratio.high < 1 / allowed else NO_DIFFERENCE
