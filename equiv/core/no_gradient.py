"""Gradients that a port does not have, and why."""

from dataclasses import dataclass
from typing import Literal

from equiv.core.output_name import ProgramName

NoGradientReason = Literal["no float", "while"]
"""`no float`: the method returns whole numbers only; `while`: a result that is differentiated comes out of a `while`,
of which jax keeps no intermediate values, as their number is not known beforehand (jax 0.10.2, `loops.py`)."""


@dataclass(frozen=True)
class NoGradient:
    """A gradient that a port does not have.

    Attributes:
        port: name of the port.
        program: the gradient, of a method in a mode.
        why: see `NoGradientReason`.
        where: `FILE:LINE` of the user's code that loops; empty if unknown, or if nothing does.
    """

    port: str
    program: ProgramName
    why: NoGradientReason
    where: str = ""

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self.why == "no float":
            return "no output is a float"
        return f"jax cannot differentiate a `while_loop` backwards{f', at {self.where}' if self.where else ''}"
