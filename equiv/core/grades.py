"""Grades."""

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


EQUAL: tuple[Grade, ...] = ("proved", "proved modulo", "exact", "float64", "rounding", "expected", "statistical")
"""Grades that say equal, strongest first."""


REFUSALS: tuple[Grade, ...] = ("refuted", "error", "blocked", "not run")
"""Grades that decide for a whole check, worst first."""


DECIDING: tuple[Grade, ...] = (*REFUSALS, *reversed(EQUAL), "unidentifiable", "vacuous")
"""Which grade of its findings a check takes: any refusal first, else the weakest equality that its leaves reach."""


Verdict = Literal["same", "different", "inconclusive", "error"]
