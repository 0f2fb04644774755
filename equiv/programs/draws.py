"""The random draws of a program, found in its jaxpr, and which of them use the same key."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.errors import PortError
from equiv.programs.content import ContentReader, digest, read_operation
from equiv.programs.jaxpr import Interpreter, inner_jaxprs, open_jaxpr, read_scan, source_line, visit_equations
from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.program import Draw


def count_draws(jaxpr: Any) -> int:
    """Count the equations that draw random bits, in calls and loops too (each loop body once)."""
    return sum(eqn.primitive.name == RANDOM_BITS for _, eqn in visit_equations(jaxpr))


def find_draws(closed: Any) -> tuple[list[Draw], list[int]]:
    """Find the distinct draws of a program, and for every `random_bits` equation, in order, the index of its draw.

    Equations that use the same key draw the same bits (`jax.checkpoint` recomputes a draw in the backward pass):
    they share one entry.

    Raises:
        PortError: a draw inside a `while` loop, whose number of iterations is not known beforehand.
    """
    if not count_draws(closed):
        return [], []
    finder = _DrawFinder()
    finder.run(closed, [digest("input", index) for index in range(len(open_jaxpr(closed)[0].invars))])
    found = finder.found
    order = list(dict.fromkeys(ident for ident, _ in found))
    first = dict(reversed(found))
    return [first[ident] for ident in order], [order.index(ident) for ident, _ in found]


STACK_PREFIX = "stack of "


class _DrawFinder(Interpreter[str]):
    """Names of values, equal only for equal computations, and the draws with the names of their bits, in order."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Draw]] = []

    def literal(self, atom: Any) -> str:
        return digest("literal", ContentReader().read(np.asarray(atom.val, atom.aval.dtype)))

    def constant(self, array: Any) -> str:
        return digest("const", ContentReader().read(array))

    def equation(self, eqn: Any, ins: list[str]) -> list[str]:
        name, params, operation = eqn.primitive.name, eqn.params, read_operation(eqn)
        outs = [digest(operation, ins, index) for index in range(len(eqn.outvars))]
        if name == RANDOM_BITS:
            draw = Draw(tuple(eqn.outvars[0].aval.shape), params["bit_width"], source_line(eqn))
            self.found.append((outs[0], draw))
        elif any(map(count_draws, inner_jaxprs(eqn))):
            raise PortError(
                f"a random draw inside {name} at {source_line(eqn)} cannot be replayed: how often it runs is not known "
                "beforehand.",
                fix="Draw outside the loop, or use jax.lax.scan.",
            )
        return outs

    def call(self, eqn: Any, ins: list[str]) -> Sequence[str]:
        before = len(self.found)
        outs = super().call(eqn, ins)
        # Inside a function that jax.random jits, equations have only jax's own lines: use the line of the call.
        self.found[before:] = [
            (ident, draw if draw.where else replace(draw, where=source_line(eqn)))
            for ident, draw in self.found[before:]
        ]
        return outs

    def cond(self, eqn: Any, ins: list[str]) -> list[str]:
        outs = [self.run(branch, ins[1:]) for branch in eqn.params["branches"]]
        return [digest("cond", ins[0], ways) for ways in zip(*outs, strict=True)]

    def scan(self, eqn: Any, ins: list[str]) -> list[str]:
        """Names of a scan's outputs, and its draws.

        A value inside the body is named by how it is computed, whatever the direction of the scan: a backward scan that
        slices what the forward scan stacked (a key, under `jax.checkpoint`) gets the forward scan's own name.
        """
        loop, inner = read_scan(eqn), _DrawFinder()
        fixed, start, scanned = loop.split(ins)
        ident = digest(ContentReader().read(loop.body), ins, loop.reverse)
        carry = [digest("carry", index, ident) for index in range(len(start))]
        slices = [
            name.removeprefix(STACK_PREFIX) if name.startswith(STACK_PREFIX) else digest("slice", name)
            for name in scanned
        ]
        outs = inner.run(loop.body, [*fixed, *carry, *slices])
        self.found += [
            (digest(name, loop.length), Draw((loop.length, *draw.shape), draw.bit_width, draw.where, ident))
            for name, draw in inner.found
        ]
        last = [digest("last", index, loop.length, ident) for index in range(len(start))]
        return [*last, *(STACK_PREFIX + name for name in outs[len(start) :])]


def draw_bits(draw: Draw, seed: Sequence[int]) -> np.ndarray:
    """Generate the bits of a draw: the same uniform number in every bit width.

    16 random bits and a half: far enough from every short decimal (rates such as 0.1 or 0.9) that a comparison
    gives the same result in float32 and float64.
    """
    coarse = np.random.default_rng(seed).integers(0, 2**16, size=draw.shape, dtype=np.uint64)
    full = (coarse << np.uint64(48)) | np.uint64(1 << 47)
    return (full >> np.uint64(64 - draw.bit_width)).astype(f"uint{draw.bit_width}")
