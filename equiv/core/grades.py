"""Grades: how strongly a check establishes equality, or why it does not."""

from typing import Literal

Grade = Literal[
    "proved",
    "proved modulo",
    "exact",
    "float64",
    "rounding",
    "expected",
    "statistical",
    "unidentifiable",
    "vacuous",
    "blocked",
    "not run",
    "error",
    "refuted",
]

EQUAL_GRADES: tuple[Grade, ...] = ("proved", "proved modulo", "exact", "float64", "rounding", "expected", "statistical")
"""Grades that mean equal, strongest first."""

REFUSAL_GRADES: tuple[Grade, ...] = ("refuted", "error", "blocked", "not run")
"""Grades that override all others in a check, worst first."""

GRADE_PRIORITY: tuple[Grade, ...] = (*REFUSAL_GRADES, *reversed(EQUAL_GRADES), "unidentifiable", "vacuous")
"""The order in which a check takes the grade of a finding: any refusal first, else the weakest equality."""

IN_RANGE = "indices in range"

MASKED = "masked logits have no weight"

CONSTANT_MASK = "logits that a constant mask removes have no weight"

INPUT_CONDITIONS = frozenset((IN_RANGE, MASKED))
"""Rewrites of the prover whose condition the values of inputs decide: an input of the case need not meet it.

`CONSTANT_MASK` is none: its mask is known, and its logits stay as far from overflow as `values finite` has them.
"""

Verdict = Literal["same", "different", "inconclusive", "error"]
