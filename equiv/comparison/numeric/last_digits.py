"""Which last digits of constants explain a difference: a fit of a few unknowns to many outputs. NumPy only.

A difference of outputs that comes from the last digit of one number has one direction, the response to that number, for
all elements, programs and probes. So the digit is found, and with it the outputs have to agree like any others: another
mistake of the same size stays what it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_GAIN = 0.01
"""By which part one more unknown has to lower what is left, to be taken."""

CONVERGING = 0.1
"""A step that leaves more of a difference is not about to end."""

TIE = 1e-6
"""Unknowns that leave the same part of a difference, but for so much of it, do as well: the order decides."""

ROUNDS = 5
"""Number of steps of Gauss and Newton with the same unknowns: what is left after the first is of second order."""


@dataclass(frozen=True)
class Fit:
    """Some unknowns, and by how much each is moved.

    Attributes:
        amounts: of all unknowns, between -1 and 1; 0 where one is not needed.
        needed: numbers of those that are.
    """

    amounts: np.ndarray
    needed: tuple[int, ...] = ()


def fit_amounts(difference: Callable[[np.ndarray], Sequence[np.ndarray]], unknowns: int) -> Fit:
    """Find as few unknowns as possible that cancel differences, each moved by at most one last digit.

    Args:
        difference: amounts to the differences of each output's elements, over their budgets.
        unknowns: number of amounts.
    """
    fit, base = Fit(np.zeros(unknowns)), difference(np.zeros(unknowns))
    if not unknowns or _largest(base) <= 1:
        return fit
    sizes = [one.size for one in base]
    # What is left counts alike in all outputs: one that something else makes different hides nothing of the others.
    alike = np.repeat([1 / max(1.0, _largest([one])) for one in base], sizes)
    left = np.concatenate(base)
    responses = np.column_stack([np.concatenate(difference(unit)) - left for unit in np.eye(unknowns)])
    # A small problem with the same solutions: everything is about angles between these columns.
    axes, columns = np.linalg.qr(responses * alike[:, None])
    while len(fit.needed) < unknowns:
        needed = (*fit.needed, _most_helpful(columns, axes.T @ (left * alike), fit.needed))
        amounts, rest = fit.amounts, left
        for _ in range(ROUNDS):
            before = np.linalg.norm(rest * alike)
            amounts = np.clip(amounts + _next_step(responses, rest, sizes, needed), -1.0, 1.0)
            rest = np.concatenate(difference(amounts))
            if np.all(np.abs(rest) <= 1):
                return Fit(amounts, needed)
            if np.linalg.norm(rest * alike) > before * CONVERGING:
                break  # what is left is not of second order: one more unknown, or something else
        if np.linalg.norm(rest * alike) > (1 - LEAST_GAIN) * np.linalg.norm(left * alike):
            return fit
        fit, left = Fit(amounts, needed), rest
    return fit


def _largest(arrays: Sequence[np.ndarray]) -> float:
    return max((float(np.max(np.abs(one), initial=0.0)) for one in arrays), default=0.0)


def _next_step(
    responses: np.ndarray, difference: np.ndarray, sizes: Sequence[int], needed: tuple[int, ...]
) -> np.ndarray:
    """The change of some amounts that cancels most; an output weighs the less, the farther it is from its budget."""
    parts = np.split(difference, np.cumsum(sizes)[:-1])
    weight = np.repeat([max(1.0, _largest([one])) ** -0.5 for one in parts], sizes)
    return _solve(responses * weight[:, None], difference * weight, needed)


def _most_helpful(columns: np.ndarray, target: np.ndarray, taken: tuple[int, ...]) -> int:
    """The unknown that, beside those taken, leaves least of a difference; the first of those that do as well."""
    others = [one for one in range(columns.shape[1]) if one not in taken]
    norms = [float(np.linalg.norm(target + columns @ _solve(columns, target, (*taken, one)))) for one in others]
    enough = min(norms) + TIE * float(np.linalg.norm(target))
    return next(one for one, norm in zip(others, norms, strict=True) if norm <= enough)


def _solve(columns: np.ndarray, target: np.ndarray, among: tuple[int, ...]) -> np.ndarray:
    """The change of the amounts of some unknowns that cancels a difference best."""
    amounts, chosen = np.zeros(columns.shape[1]), np.array(among, int)
    amounts[chosen] = -np.linalg.lstsq(columns[:, chosen], target, rcond=None)[0]
    return np.clip(amounts, -2.0, 2.0)  # as far as amounts can be apart
