"""The counters of training: whole numbers that only count its steps, which a schedule or an optimizer reads.

What they are after a thousand steps is computed without making these steps, so that a probe can begin there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.compat import enable_x64
from equiv.core.output_name import BEGIN, STEP, InputName, carried_output
from equiv.programs.jaxpr import Interpreter, read_scan
from equiv.programs.program import Program, Programs
from equiv.programs.prover.dependencies import input_dependencies
from equiv.programs.transform import select_outputs

COUNTED_STEPS = 2048
"""Number of steps that are really counted; beyond them counters go on as they did: by one, or round and round."""

MOST_ROUND = 512
"""Longest round of a counter, such as one that begins anew with every update of accumulated gradients."""

MOST_CHOICES = 16
"""Largest constant array whose numbers are read one by one, such as the boundaries of a schedule."""

LARGEST_COUNT = 10**9
"""Largest number that is taken for a number of steps."""

NamedCounts = dict[InputName, np.ndarray]


@dataclass(frozen=True, eq=False)
class Counters:
    """The counters in the carry of training.

    Attributes:
        names: their names.
        begin: gives their first values; without inputs.
        step: from all of them to all of them, after one step.
        float64: whether they belong to programs in float64.
    """

    names: tuple[InputName, ...]
    begin: Program
    step: Program
    float64: bool

    def after(self, steps: Sequence[int]) -> NamedCounts:
        """Compute each counter after every one of these numbers of steps, as one array.

        Args:
            steps: numbers of steps; beyond `COUNTED_STEPS` they are computed from how counters went on before.
        """
        found: NamedCounts = {}
        for name, counted in self._counted.items():
            values = [_go_on(counted.astype("int64"), number) for number in steps]
            limits = np.iinfo(counted.dtype)
            found[name] = np.clip(np.array(values, "int64"), limits.min, limits.max).astype(counted.dtype)
        return found

    @cached_property
    def round(self) -> int:
        """After how many steps all counters go on as before: 4 where every fourth step updates parameters, else 1."""
        return max((pattern[0] for counted in self._counted.values() if (pattern := _pattern(counted))), default=1)

    def around(self, number: int) -> tuple[int, ...]:
        """The steps beside the one at which a counter reaches a number, and the end of the round that begins there.

        Args:
            number: what a step compares its counters with.
        """
        reached = (_first_reaching(counted.astype("int64"), number) for counted in self._counted.values())
        steps = {one + move for one in reached if one is not None for move in (-1, 0, self.round - 1)}
        return tuple(sorted(one for one in steps if one >= 0))

    @cached_property
    def _counted(self) -> Mapping[InputName, np.ndarray]:
        """Every counter before each of the first steps."""
        first = [carried_output(BEGIN, name) for name in self.names]
        after = [carried_output(STEP, name) for name in self.names]

        def ordered(program: Program, outputs: Sequence[Any], given: Sequence[Any]) -> list[Any]:
            found = dict(zip(program.outputs, jaxpr_as_fun(program.jaxpr)(*given), strict=True))
            return [found[name] for name in outputs]

        def one(counts: list[Any], _: None) -> tuple[list[Any], list[Any]]:
            named = dict(zip(self.names, counts, strict=True))
            later = ordered(self.step, after, [named[name] for name in self.step.inputs])
            return [new.astype(old.dtype) for new, old in zip(later, counts, strict=True)], counts

        def count() -> list[Any]:
            return jax.lax.scan(one, ordered(self.begin, first, ()), None, length=COUNTED_STEPS)[1]

        with enable_x64(self.float64):
            counted = jax.device_get(jax.jit(count)())
        return dict(zip(self.names, counted, strict=True))


def _go_on(counted: np.ndarray, step: int) -> int:
    """A counter after a number of steps, from its values before each of the first ones."""
    if step < len(counted):
        return int(counted[step])
    if (pattern := _pattern(counted)) is None:
        return int(counted[-1])
    period, gain = pattern
    # The whole periods that lead from a known value to the one that is asked for.
    missing = -((len(counted) - 1 - step) // period)
    return int(counted[step - missing * period] + missing * gain)


def _pattern(counted: np.ndarray) -> tuple[int, int] | None:
    """After how many steps a counter goes on as before, and how much larger it is then; None where it does not."""
    late = counted[len(counted) // 2 :].astype("int64")
    for period in range(1, MOST_ROUND + 1):
        gains = late[period:] - late[:-period]
        if (gains == gains[0]).all():
            return period, int(gains[0])
    return None


def _first_reaching(counted: np.ndarray, number: int) -> int | None:
    """The first step before which a counter is at least a number; None where it never is."""
    known = np.flatnonzero(counted >= number)
    if known.size:
        return int(known[0])
    pattern = _pattern(counted)
    if pattern is None or pattern[1] <= 0:
        return None
    period, gain = pattern
    last = counted[-period:]
    rounds = -((int(last.max()) - number) // gain)
    # The values of the round in which the largest of them reaches the number.
    reached = np.flatnonzero(last + rounds * gain >= number)
    return len(counted) - period + rounds * period + int(reached[0])


def find_counters(programs: Programs) -> Counters | None:
    """Find the counters of a port's training; None where there are none.

    A counter is a whole number that starts at the same value whatever the parameters are, and that after a step depends
    on nothing but counters.
    """
    begin, step = programs.begin, programs.step
    if begin is None or step is None:
        return None
    avals = dict(zip(step.inputs, step.jaxpr.in_avals, strict=True))
    left = {name for name, aval in avals.items() if _may_count(name, aval)}
    if not left:
        return None
    begun, needs = input_dependencies(begin), input_dependencies(step)
    left = {name for name in left if not begun[carried_output(BEGIN, name)]}
    while lost := {name for name in left if not needs[carried_output(STEP, name)] <= left}:
        left -= lost
    if not left:
        return None
    names = tuple(name for name in step.inputs if name in left)
    return Counters(
        names,
        _only(begin, tuple(carried_output(BEGIN, name) for name in names)),
        _only(step, tuple(carried_output(STEP, name) for name in names)),
        programs.float64,
    )


def _may_count(name: InputName, aval: Any) -> bool:
    counted = name.kind in ("optimizer", "bookkeeping") and not name.leaf
    return counted and aval.shape == () and np.issubdtype(aval.dtype, np.integer)


def _only(program: Program, outputs: tuple[Any, ...]) -> Program:
    """A program with some of its outputs, and with the inputs that these need."""
    wanted = set(outputs)
    return select_outputs(program, tuple(name for name in program.outputs if name in wanted), every_input=False)


@dataclass(frozen=True)
class _Part:
    """What a value depends on, and its numbers where they are constant and few.

    Attributes:
        counts: whether it depends on counters.
        varies: whether it depends on anything else that varies.
        numbers: the numbers of a constant.
    """

    counts: bool = False
    varies: bool = False
    numbers: frozenset[float] = frozenset()


class _LiteralReader(Interpreter[_Part]):
    """The constants that values meet which depend on counters alone."""

    def __init__(self) -> None:
        self.met: set[float] = set()

    def literal(self, atom: Any) -> _Part:
        return self.constant(np.asarray(atom.val))

    def constant(self, array: Any) -> _Part:
        plain = np.size(array) <= MOST_CHOICES and not jnp.issubdtype(array.dtype, jax.dtypes.extended)
        numbers = np.asarray(array).ravel() if plain and np.isrealobj(array) else ()
        return _Part(numbers=frozenset(float(one) for one in numbers))

    def equation(self, eqn: Any, ins: list[_Part]) -> Sequence[_Part]:
        joined = _join(ins)
        if joined.counts and not joined.varies:
            self.met |= joined.numbers
            joined = _Part(counts=True)
        elif joined.varies:
            joined = _Part(varies=True)
        return [joined] * len(eqn.outvars)

    def scan(self, eqn: Any, ins: list[_Part]) -> Sequence[_Part]:
        loop = read_scan(eqn)
        fixed, carry, scanned = loop.split(ins)
        outs = self.run(loop.body, [*fixed, *carry, *scanned])
        # What the first turn makes of a carry, the second one meets.
        carry = [_join(pair) for pair in zip(carry, outs, strict=False)]
        outs = self.run(loop.body, [*fixed, *carry, *scanned])
        return [*(_join(pair) for pair in zip(carry, outs, strict=False)), *outs[loop.carries :]]

    def cond(self, eqn: Any, ins: list[_Part]) -> Sequence[_Part]:
        index, *given = ins
        outs = [self.run(branch, given) for branch in eqn.params["branches"]]
        return [_join((index, *parts)) for parts in zip(*outs, strict=True)]


def _join(parts: Sequence[_Part]) -> _Part:
    numbers = frozenset[float]().union(*(part.numbers for part in parts))
    few = numbers if len(numbers) <= MOST_CHOICES else frozenset[float]()
    return _Part(any(part.counts for part in parts), any(part.varies for part in parts), few)


def counter_literals(step: Program, counters: Sequence[InputName]) -> frozenset[int]:
    """The whole numbers, from 2 on, that a train step compares its counters with, or divides them by, and the like.

    Args:
        step: the train step.
        counters: names of its counters.
    """
    reader = _LiteralReader()
    reader.run(step.jaxpr, [_Part(counts=True) if name in counters else _Part(varies=True) for name in step.inputs])
    return frozenset(int(one) for one in reader.met if 2 <= one <= LARGEST_COUNT and one == int(one))
