"""Evaluation of a program under the current trace, equation by equation: what a rewrite of values starts from."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from equiv.compat import bind_equation
from equiv.programs.jaxpr import Interpreter, read_scan, read_while


class Reevaluation(Interpreter[Any]):
    """Evaluation under the current trace, loops and branches included; a subclass changes values on the way."""

    def literal(self, atom: Any) -> Any:
        """A literal as an array of its dtype: its value may be a plain Python number."""
        return np.asarray(atom.val, atom.aval.dtype)

    def constant(self, array: Any) -> Any:
        """A constant itself."""
        return array

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an equation that is no call."""
        return bind_equation(eqn, ins)

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `scan` whose body is evaluated in the same way."""
        loop = read_scan(eqn)
        fixed, start, scanned = loop.split(ins)

        def step(carry: tuple[Any, ...], slices: list[Any]) -> tuple[Any, Any]:
            outs = self.run(loop.body, [*fixed, *carry, *slices])
            return tuple(outs[: loop.carries]), tuple(outs[loop.carries :])

        carry, stacked = lax.scan(step, tuple(map(jnp.asarray, start)), scanned, loop.length, loop.reverse)
        return [*carry, *stacked]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `while_loop` whose test and body are evaluated in the same way."""
        loop = read_while(eqn)
        for_test, for_body, start = loop.split(ins)
        return lax.while_loop(
            lambda carry: self.run(loop.test, [*for_test, *carry])[0],
            lambda carry: tuple(self.run(loop.body, [*for_body, *carry])),
            tuple(map(jnp.asarray, start)),
        )

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `cond` or `switch` whose branches are evaluated in the same way."""
        branches = [
            lambda *operands, closed=closed: tuple(self.run(closed, operands)) for closed in eqn.params["branches"]
        ]
        return lax.switch(ins[0], branches, *ins[1:])
