"""The random draws of a program, found in its jaxpr: which depend on the run's key, and which use the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from equiv.errors import PortError
from equiv.programs.content import ContentReader, digest, read_operation
from equiv.programs.jaxpr import (
    Interpreter,
    inner_jaxprs,
    read_scan,
    read_while,
    source_line,
    visit_equations,
)
from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.program import Draw, Program

Path = tuple[int, ...]
"""Where an equation is in a program; see `Interpreter.path`. A branch and the two bodies of a `while` have a number."""


def count_draws(jaxpr: Any) -> int:
    """Count the equations that draw random bits, in calls and loops too (each loop body once), whatever their key."""
    return sum(eqn.primitive.name == RANDOM_BITS for _, eqn in visit_equations(jaxpr))


@dataclass(frozen=True)
class DrawSite:
    """A `random_bits` equation whose key depends on the run's key.

    Attributes:
        draw: number of the draw. Equations that use the same key draw the same bits, and share one.
        varies: for each enclosing loop, outermost first, whether its iterations use different keys.
        branches: the enclosing branches: path of the `cond` and number of the branch, outermost first.
    """

    draw: int
    varies: tuple[bool, ...] = ()
    branches: tuple[tuple[Path, int], ...] = ()


def find_draws(program: Program) -> tuple[tuple[Draw, ...], Mapping[Path, DrawSite]]:
    """Find the distinct draws of a program that depend on the run's key, and the equations that make them.

    `jax.checkpoint` recomputes a draw in the backward pass: both equations have one key and are one draw. So is a draw
    in a loop whose iterations all use one key. What is drawn from a constant key is no draw, but a part of the model.

    Raises:
        PortError: a draw inside a `while` loop with a new key in every iteration, whose number is not known beforehand.
    """
    if not count_draws(program.jaxpr):
        return (), {}
    finder = _DrawFinder()
    inputs = [_Known(digest("input", index), name.is_random) for index, name in enumerate(program.inputs)]
    finder.run(program.jaxpr, inputs)
    first = {one.name: one.draw for one in reversed(finder.found)}
    order = list(dict.fromkeys(one.name for one in finder.found))
    number = {name: index for index, name in enumerate(order)}
    sites = {one.path: DrawSite(number[one.name], one.varies, one.branches) for one in finder.found}
    return tuple(first[name] for name in order), sites


@dataclass(frozen=True)
class _Known:
    """What is known of a value.

    Attributes:
        name: equal only for equal computations.
        random: whether it depends on the run's key other than through random bits.
        loops: depths of the enclosing loops whose iterations have different values.
        row: of a stack, the value inside the loop that stacked it, or the one that every row repeats.
        stacked_at: depth of that loop; 0 where all rows are one value.
    """

    name: str
    random: bool = False
    loops: frozenset[int] = frozenset()
    row: "_Known | None" = None
    stacked_at: int = 0


@dataclass(frozen=True)
class _Found:
    """A `random_bits` equation: the name of its bits, its draw, and what `DrawSite` says of it."""

    name: str
    draw: Draw
    path: Path
    loops: frozenset[int]
    varies: tuple[bool, ...] = ()
    branches: tuple[tuple[Path, int], ...] = ()


@dataclass
class _DrawFinder(Interpreter[_Known]):
    """What is known of every value, and the draws in program order.

    Attributes:
        found: the draws.
        depth: number of the enclosing loops.
    """

    found: list[_Found] = field(default_factory=list)
    depth: int = 0

    def literal(self, atom: Any) -> _Known:
        return _Known(digest("literal", ContentReader().read(np.asarray(atom.val, atom.aval.dtype))))

    def constant(self, array: Any) -> _Known:
        return _Known(digest("const", ContentReader().read(array)))

    def equation(self, eqn: Any, ins: list[_Known]) -> list[_Known]:
        name = eqn.primitive.name
        random, loops = any(value.random for value in ins), _all_loops(ins)
        outs = [
            _Known(_name_result(eqn, [value.name for value in ins], index), random, loops)
            for index in range(len(eqn.outvars))
        ]
        if name == RANDOM_BITS:
            # The bits become an input: what is computed from them depends on that, and no longer on the key.
            outs = [replace(outs[0], random=False)]
            if random:
                draw = Draw(tuple(eqn.outvars[0].aval.shape), eqn.params["bit_width"], source_line(eqn))
                self.found.append(_Found(outs[0].name, draw, self.path, loops))
        elif random and any(map(count_draws, inner_jaxprs(eqn))):
            raise _not_replayed(name, source_line(eqn))
        if row := _repeated_row(eqn, ins):
            outs = [replace(outs[0], row=row)]
        return outs

    def call(self, eqn: Any, ins: list[_Known]) -> Sequence[_Known]:
        before = len(self.found)
        outs = super().call(eqn, ins)
        # Inside a function that jax.random jits, equations have only jax's own lines: use the line of the call.
        self.found[before:] = [
            one if one.draw.where else replace(one, draw=replace(one.draw, where=source_line(eqn)))
            for one in self.found[before:]
        ]
        return outs

    def cond(self, eqn: Any, ins: list[_Known]) -> list[_Known]:
        outs = []
        for number, branch in enumerate(eqn.params["branches"]):
            before = len(self.found)
            outs.append(self.run(branch, ins[1:], (*self.path, number)))
            self.found[before:] = [
                replace(one, branches=((self.path, number), *one.branches)) for one in self.found[before:]
            ]
        return [
            _Known(
                digest("cond", ins[0].name, [value.name for value in ways]),
                any(value.random for value in (ins[0], *ways)),
                _all_loops([ins[0], *ways]),
            )
            for ways in zip(*outs, strict=True)
        ]

    def scan(self, eqn: Any, ins: list[_Known]) -> list[_Known]:
        """What is known of a scan's outputs, and its draws.

        A value inside the body is named by how it is computed, whatever the direction of the scan: a backward scan that
        slices what the forward scan stacked (a key, under `jax.checkpoint`) gets the forward scan's own name.
        """
        loop, before, depth = read_scan(eqn), len(self.found), self.depth + 1
        fixed, start, scanned = loop.split(ins)
        ident = digest(ContentReader().read(loop.body), [value.name for value in ins], loop.reverse)
        slices = [_slice_value(value, depth) for value in scanned]
        carry, outs = self._iterate(start, ident, lambda now: self.run(loop.body, [*fixed, *now, *slices], self.path))
        self.found[before:] = [_after_scan(one, depth, loop.length, ident) for one in self.found[before:]]
        last = [
            begin if now is begin else _leave_loop(now, depth, digest("last", index, loop.length, ident))
            for index, (begin, now) in enumerate(zip(start, carry, strict=True))
        ]
        stacks = [
            replace(_leave_loop(out, depth, digest("stack", out.name, loop.length)), row=out, stacked_at=depth)
            for out in outs[len(start) :]
        ]
        return [*last, *stacks]

    def while_loop(self, eqn: Any, ins: list[_Known]) -> list[_Known]:
        """What is known of a while loop's outputs, and its draws: those whose key it does not change."""
        loop, before, depth = read_while(eqn), len(self.found), self.depth + 1
        for_test, for_body, start = loop.split(ins)
        ident = digest(*ContentReader().read_all((loop.test, loop.body)), [value.name for value in ins])

        def turn(now: list[_Known]) -> list[_Known]:
            self.run(loop.test, [*for_test, *now], (*self.path, 0))
            return self.run(loop.body, [*for_body, *now], (*self.path, 1))

        carry, _ = self._iterate(start, ident, turn)
        if any(depth in one.loops for one in self.found[before:]):
            raise _not_replayed("while", source_line(eqn))
        self.found[before:] = [_after_while(one, ident) for one in self.found[before:]]
        return [
            begin if now is begin else _leave_loop(now, depth, digest("until", index, ident))
            for index, (begin, now) in enumerate(zip(start, carry, strict=True))
        ]

    def _iterate(self, start: list[_Known], ident: str, turn: Any) -> tuple[list[_Known], list[_Known]]:
        """Find what holds of the carries in every iteration; one that the body returns unchanged is its start."""
        before, self.depth = len(self.found), self.depth + 1
        carry = [
            _Known(digest("carry", index, ident), value.random, value.loops | {self.depth})
            for index, value in enumerate(start)
        ]
        while True:
            outs = turn(carry)
            following = list(map(_next_carry, start, carry, outs))
            if following == carry:
                break
            carry = following
            del self.found[before:]
        self.depth -= 1
        return carry, outs


def _next_carry(start: _Known, now: _Known, out: _Known) -> _Known:
    if out.name in (now.name, start.name):
        return start
    return replace(now, random=now.random or out.random, loops=now.loops | out.loops)


def _after_scan(one: _Found, depth: int, length: int, ident: str) -> _Found:
    """A draw of a scan's body seen from outside: the bits of all iterations, or those that all of them use."""
    draw = replace(one.draw, inside=ident)
    if depth not in one.loops:
        return replace(one, draw=draw, varies=(False, *one.varies))
    draw = replace(draw, shape=(length, *draw.shape), loop=ident)
    name = digest(one.name, length)
    return replace(one, name=name, draw=draw, loops=one.loops - {depth}, varies=(True, *one.varies))


def _after_while(one: _Found, ident: str) -> _Found:
    return replace(one, draw=replace(one.draw, inside=ident), varies=(False, *one.varies))


def _leave_loop(value: _Known, depth: int, name: str) -> _Known:
    return _Known(name, value.random, value.loops - {depth})


def _slice_value(value: _Known, depth: int) -> _Known:
    """One iteration's slice of a scanned value, in a loop of this depth."""
    # A row has the name that it had inside its own loop, where that means the same: in another loop of that depth.
    if value.row is not None and (value.stacked_at == depth or value.stacked_at not in value.row.loops):
        return value.row
    return _Known(digest("slice", depth, value.name), value.random, value.loops | {depth})


def _repeated_row(eqn: Any, ins: list[_Known]) -> _Known | None:
    """The value that every row of a result repeats, as of a key that is broadcast; None if there is none."""
    name, params = eqn.primitive.name, eqn.params
    if name == "broadcast_in_dim" and len(ins) == 1:
        (result,) = eqn.outvars
        plain = params["broadcast_dimensions"] == tuple(range(1, result.aval.ndim))
        return ins[0] if plain and result.aval.shape[1:] == eqn.invars[0].aval.shape else None
    if name == "stack" and params["axis"] == 0:
        return ins[0] if all(one == ins[0] for one in ins) else None
    if not ins or ins[0].row is None or ins[0].stacked_at:
        return None
    row = ins[0].row
    if name == "concatenate" and params["dimension"] == 0:
        return row if all(one.row == row and not one.stacked_at for one in ins) else None
    if name == "tile":
        return row if all(times == 1 for times in params["reps"][1:]) else None
    if name in ("random_wrap", "random_unwrap"):
        return replace(row, name=_name_result(eqn, [row.name], 0), row=None, stacked_at=0)
    return None


def _all_loops(values: Sequence[_Known]) -> frozenset[int]:
    return frozenset[int]().union(*(value.loops for value in values))


def _not_replayed(name: str, where: str) -> PortError:
    return PortError(
        f"a random draw inside {name} at {where} cannot be replayed: how often it runs is not known beforehand.",
        fix="Draw outside the loop, or use jax.lax.scan.",
    )


def _name_result(eqn: Any, ins: Sequence[str], index: int) -> str:
    return digest(read_operation(eqn), list(ins), index)


# Rates and probabilities that people write: 0.1, 0.375, 1/3.
SHORT_DENOMINATORS = (256, 360, 1000)

MARGIN_BITS = 12
"""Distance of a replayed uniform number from every fraction of a short denominator: 2**12 of 2**32, which is eight
spacings of float32. So `u < rate`, `u <= rate` and `1 - u > 1 - rate` are one mask, in float32 and in float64."""


def draw_bits(draw: Draw, seed: Sequence[int]) -> np.ndarray:
    """Generate the bits of a draw: the same uniform number in every bit width, and all bits of it random.

    The upper bits are the number that `jax.random.uniform` makes, which is near no short fraction. The lower ones are
    what `jax.random.randint` uses: they are the same in 32 and in 64 bits.
    """
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 2**32, size=draw.shape, dtype=np.uint64)
    while (near := _is_near_short_fraction(number)).any():
        number = np.where(near, rng.integers(0, 2**32, size=draw.shape, dtype=np.uint64), number)
    full = (number << np.uint64(32)) | number
    return (full >> np.uint64(64 - draw.bit_width)).astype(f"uint{draw.bit_width}")


def put_tails(bits: np.ndarray, tails: Sequence[float]) -> np.ndarray:
    """Put numbers into a draw, in place of the first of its last axis: 0 is its smallest bits, and 1 its largest.

    Args:
        bits: of a draw.
        tails: as the uniform numbers that `jax.random.uniform` makes of them; as many are left out as do not fit.
    """
    if not tails or bits.ndim == 0 or bits.shape[-1] < 2:
        return bits
    width = 8 * bits.dtype.itemsize
    places = min(len(tails), bits.shape[-1] - 1)
    given = [min(2**width - 1, max(0, round(one * 2**width))) for one in tails[:places]]
    changed = bits.copy()
    changed[..., :places] = np.array(given, bits.dtype)
    return changed


def _is_near_short_fraction(number: np.ndarray) -> np.ndarray:
    near = np.zeros(np.shape(number), bool)
    for denominator in SHORT_DENOMINATORS:
        # The distance to the next multiple of 2**32 / denominator, times the denominator.
        past = (number * np.uint64(denominator)) % np.uint64(2**32)
        near |= np.minimum(past, np.uint64(2**32) - past) < np.uint64(denominator << MARGIN_BITS)
    return near
