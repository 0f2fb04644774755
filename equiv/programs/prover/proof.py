"""Proof."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Proof:
    """That two outputs are the same for every input, and which named rewrites that takes."""

    grade: Literal["proved", "proved modulo"]
    rewrites: tuple[str, ...] = ()


WIDE = "constants as in float64"
"""The rewrite of comparing float64 traces: float32 rounds `1 - 0.99` and `0.01` apart, real numbers do not."""


Proofs = Mapping[tuple[str, str, bool], Proof]
"""`(place in the reference, place in the candidate, cold)` to proof; cold: from each library's own fresh state."""
