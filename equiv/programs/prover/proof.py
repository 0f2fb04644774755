"""Proofs: that two outputs are equal for every input, and under which named rewrites."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from equiv.core.output_name import OutputName


@dataclass(frozen=True)
class Proof:
    """A proof that two outputs are equal for every input, with the named rewrites that it needs."""

    grade: Literal["proved", "proved modulo"]
    rewrites: tuple[str, ...] = ()


FLOAT64_CONSTANTS = "constants as in float64"
"""The rewrite of comparing float64 traces: in float32 `1 - 0.99` and `0.01` differ, in real numbers they do not."""

FLOAT64_CASTS = "casts as in float64"
"""The rewrite of leaving casts out, as float64 traces do: in float16 `x * x` is infinite from 256 on."""

READ_CONSTANTS = "constants to the other port's digits"
"""The rewrite of reading a number that one port has rounded to bfloat16 or float16 as that of the other port, or as one
over it, which rounds to it: one divides by `sqrt(8)` in bfloat16, the other multiplies by `8**-0.5` in float32."""

Readings = frozenset[tuple[float, float]]
"""Numbers of a program, each with the number that it is read as."""

Precision = Literal["native", "kept", "float64", "rounded"]
"""In which form programs are numbered: as traced; in float64 with their casts kept; in float64 without casts; without
casts too, with every number as it was traced: of `sqrt(8)` in bfloat16 a float64 trace has another number than a port
that holds it as an array of numpy."""


@dataclass(frozen=True)
class Form:
    """In which form a program is numbered.

    Attributes:
        precision: in which.
        unrolled: lengths of the `scan`s that are numbered turn by turn, as if they were written out.
        far_slices: whether a slice of what is computed is computed from slices, also far from any concatenation.
        readings: numbers of either port that are read as others, see `READ_CONSTANTS`.
    """

    precision: Precision
    unrolled: frozenset[int] = frozenset()
    far_slices: bool = False
    readings: Readings = frozenset()


Proofs = Mapping[tuple[OutputName, OutputName, bool], Proof]
"""`(output of the reference, output of the candidate, cold)` to proof; cold: from each library's own initial state."""
