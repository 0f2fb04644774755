"""What is tried to be proved of two outputs, from the strongest statement to the weakest.

In the ports' own precision; in float64, where constants are not rounded yet, with the ports' casts and then without;
and without casts with the numbers as each port has rounded them, which two ports may share that cast at other places;
and with those of few digits as the other port has them.
"""

from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.proof import FLOAT64_CASTS, FLOAT64_CONSTANTS, READ_CONSTANTS, Precision

ALL_REWRITES = frozenset(CONDITIONS)

NO_REWRITES: frozenset[str] = frozenset()

CLOSED_SUMS = frozenset(("long sums are closed",))
"""Beside rewrites: `Algebra.closes`. It proves less, and takes as long as there are equations, not as their square."""

LIFTED: tuple[tuple[Precision, tuple[str, ...]], ...] = (
    ("native", ()),
    ("kept", (FLOAT64_CONSTANTS,)),
    ("float64", (FLOAT64_CONSTANTS, FLOAT64_CASTS)),
    ("rounded", (FLOAT64_CASTS,)),
    ("rounded", (FLOAT64_CASTS, READ_CONSTANTS)),
)
"""Precision, and the rewrites that it is itself."""

Statement = tuple[Precision, frozenset[str], tuple[str, ...]]

STATEMENTS: tuple[Statement, ...] = (
    ("native", NO_REWRITES, ()),
    *((precision, rules, also) for precision, also in LIFTED for rules in (ALL_REWRITES | CLOSED_SUMS, ALL_REWRITES)),
)
"""Precision, rewrites, and the rewrites that the precision itself is: from the strongest statement to the weakest. Of
equal statements the one that is quickly tried comes first."""
