"""The rounding budget of an output: the largest difference that rounding explains. Derived, never set by hand.

    budget = response * sqrt(depth) * BUDGET_LEVEL * factor

Theorem 2.4 of Higham and Mary (A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41(5),
2019): let every operation of a chain of n have the relative error 1 + d_i, where the d_i are independent, have mean
zero, and |d_i| <= u, the unit roundoff. Then for any level l > 0

    |(1 + d_1) ... (1 + d_n) - 1|  <=  exp(l sqrt(n) u + n u^2 / (1 - u)) - 1  =  l sqrt(n) u + O(u^2)

fails with probability at most 2 exp(-l^2 (1 - u)^2 / 2). Random errors add up like the square root of their number, not
like their number. So

- `BUDGET_LEVEL` is the l at which 2 exp(-l^2 / 2) is `BUDGET_RISK`;
- `depth` is n, the number of rounded operations in a row (`equiv.programs.rounding_depth`);
- `response` stands for u times the condition of the output. It is measured: how far the output of the reference moves
  when each of its inputs moves by one ulp (2 u) of the same precision, at random up or down. It is at least an ulp of
  the largest element of the output, since storing the result rounds that much even where no input reaches it;
- `factor` is the case's `budget_factor`: 1, or an override that every report shows.

Both ports round, each to within l sqrt(n) u times the condition of the exact value: so they differ by at most twice
that, which is why the response is measured with 2 u.
"""

import math

BUDGET_RISK = 1e-9
"""The probability that rounding alone exceeds a budget."""

BUDGET_LEVEL = math.sqrt(2 * math.log(2 / BUDGET_RISK))
"""The factor of a budget at `BUDGET_RISK`."""


def rounding_response(measured: float, ulp: float, largest: float) -> float:
    """The response of an output to rounding.

    Args:
        measured: its largest change when each input moves by one ulp; 0 where that was not measured.
        ulp: spacing of floats around 1 in its dtype; 0 for integers.
        largest: its largest absolute value.
    """
    return max(measured, ulp * largest)


def rounding_growth(depth: int, factor: float = 1.0) -> float:
    """How many times the response a budget is: `sqrt(depth) * BUDGET_LEVEL * factor`, with a depth of at least one."""
    return math.sqrt(max(1, depth)) * BUDGET_LEVEL * factor
