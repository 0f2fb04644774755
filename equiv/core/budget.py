"""The rounding budget of an element: the largest difference that rounding explains. Derived, never set by hand.

    budget = response * sqrt(depth) * BUDGET_LEVEL * factor

Theorem 2.4 of Higham and Mary (A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41(5),
2019): let every operation of a chain of n have the relative error 1 + d_i, where the d_i are independent, have mean
zero, and |d_i| <= u, the unit roundoff. Then for any level l > 0

    |(1 + d_1) ... (1 + d_n) - 1|  <=  exp(l sqrt(n) u + n u^2 / (1 - u)) - 1  =  l sqrt(n) u + O(u^2)

fails with probability at most 2 exp(-l^2 (1 - u)^2 / 2). Random errors add up like the square root of their number, not
like their number. So

- `BUDGET_LEVEL` is the l at which 2 exp(-l^2 / 2) is `BUDGET_RISK`;
- `depth` is n, the number of rounded operations in a row (`equiv.programs.rounding_depth`);
- `response` stands for u times the condition of the element. It is measured: how far the output moves when each input
  moves by one ulp (2 u) of the same precision, at random up or down. It is at least an ulp of the element itself, since
  storing the result rounds that much even where no input reaches it, and at least the smallest normal number, since
  less is flushed to zero;
- `factor` is the case's `budget_factor`: 1, or an override that every report shows.

Both ports round, each to within l sqrt(n) u times the condition of the exact value: so they differ by at most twice
that, which is why the response is measured with 2 u.

Blocks of like scale
--------------------
One element's response is a poor estimate of its condition c: it is |sum a_j s_j| with random signs s_j, nearly
|normal| * c, and an element may not move at all by chance. One response for the whole output is as poor where its
elements have different scales: beside -1e30 in a masked column, an error of 25 in the logits is rounding. So elements
are grouped into blocks by the power of two of their magnitude, and a block's response is the largest of its elements'
times `sampling_level(n)`: m independent responses are all below c / f with probability at most (sqrt(2 / pi) / f)^m,
since the density of |normal| is at most sqrt(2 / pi), and f is chosen so that this is `BUDGET_RISK`.

- n is what the m responses of a block are worth, (sum r^2)^2 / sum r^4: a third of m where all of a block have one
  condition, and 1 where a single element moves far more than the others. It is then unknown how far that one can move.
- Few responses say little: with n = 2 the level is 25,000, with n = 16 it is 3. A block may therefore be judged
  together with those next to it: the smallest bound of all runs of blocks that begin or end with it counts. With those
  above it, that takes an element to be no worse conditioned than larger ones of its output; with those below it, no
  worse relative to its size, so that their responses count as large as they would be at its size. Both hold where
  errors are absolute and where they are relative, and its own responses always count. An element that breaks them, and
  moves in no run by more than a part t of its condition, has a budget that is too small: with `ROUNDING_NUDGES` = 2
  runs that happens with probability 2 t^2 / pi, as it does to an output of one element.
- Responses of exactly zero are no small normal numbers: numbers have a spacing, and a cancelled sum may stay where it
  is. They count only where a run of blocks has nothing else, and many of them.
- No budget is above that of the output as a whole: the largest response of all elements, and an ulp of the largest.
- Zeros have the block of the smallest elements that are not zero.
"""

import math
from dataclasses import dataclass

BUDGET_RISK = 1e-9
"""The probability that rounding alone exceeds a budget."""

BUDGET_LEVEL = math.sqrt(2 * math.log(2 / BUDGET_RISK))
"""The factor of a budget at `BUDGET_RISK`."""


@dataclass(frozen=True)
class Responses:
    """How far an output moves when each input moves by one ulp: as a whole, and by blocks of like scale.

    Attributes:
        largest: the largest change of an element; 0 where nothing was measured.
        exponents: of the blocks, in ascending order: magnitudes in [2^(e - 1), 2^e). Empty: no blocks were measured.
        blocks: the response of each block.
    """

    largest: float = 0.0
    exponents: tuple[int, ...] = ()
    blocks: tuple[float, ...] = ()


def sampling_level(samples: float) -> float:
    """How many times the largest of so many measured responses a condition may be, but for `BUDGET_RISK`.

    Args:
        samples: what the responses are worth as independent ones of one condition; 1 or more.
    """
    return max(1.0, math.sqrt(2 / math.pi) * BUDGET_RISK ** (-1 / samples))


def rounding_response(measured: float, ulp: float, largest: float) -> float:
    """The response of an output as a whole to rounding.

    Args:
        measured: its largest change when each input moves by one ulp; 0 where that was not measured.
        ulp: spacing of floats around 1 in its dtype; 0 for integers.
        largest: its largest absolute value.
    """
    return max(measured, ulp * largest)


def rounding_growth(depth: int, factor: float = 1.0) -> float:
    """How many times the response a budget is: `sqrt(depth) * BUDGET_LEVEL * factor`, with a depth of at least one."""
    return math.sqrt(max(1, depth)) * BUDGET_LEVEL * factor
