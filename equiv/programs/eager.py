"""Run a program operation by operation, without compiling it as a whole: a thousand variants of one cost little.

Operations that numpy rounds as XLA does (IEEE 754 requires it), and sums, whose order is free, run in numpy, whose
overhead per operation is ten times smaller; everything else runs in jax, one primitive at a time.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.compat import bind_equation
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.programs.content import is_key
from equiv.programs.jaxpr import Interpreter, find_dead_values, inner_jaxprs, read_scan, read_while
from equiv.programs.numpy_rules import MOVE_RULES, REDUCTION_RULES
from equiv.programs.primitives import CALLS, NUMPY_FUNCTIONS, PLACEMENTS

MOST_COMPILED = 64
"""Number of equations with a body that are kept compiled."""

FULL_ITEMSIZE = 4
"""Bytes of a float32."""

NUMPY_RULES = MOVE_RULES | REDUCTION_RULES

EquationCallback = Callable[[tuple[Any, ...], Sequence[Any], Sequence[Any]], None]
"""Called for every equation with (enclosing calls..., equation), its inputs and its outputs; a loop is one equation."""


def evaluate_eagerly(closed: Any, arrays: Sequence[Any], seen: EquationCallback | None = None) -> list[Any]:
    """Evaluate a jaxpr eagerly; call it inside `jax.enable_x64(True)` for a float64 program.

    Returns:
        Numpy arrays; keys stay arrays of jax.
    """
    evaluation = EagerEvaluation() if seen is None else _ObservedEvaluation(seen)
    return [value if is_key(value) else np.asarray(value) for value in evaluation.run(closed, arrays)]


class EagerEvaluation(Interpreter[Any]):
    """Evaluation of a jaxpr on arrays, operation by operation; a subclass changes values on the way."""

    def in_loop(self) -> "EagerEvaluation":
        """What evaluates the bodies of loops and branches."""
        return self

    def dead_values(self, jaxpr: Any) -> Sequence[Sequence[Any]]:
        """Values that nothing reads again are dropped: a large step has thousands."""
        return find_dead_values(jaxpr)

    def literal(self, atom: Any) -> Any:
        """A literal as an array of its dtype."""
        return np.asarray(atom.val, atom.aval.dtype)  # its value may be a plain Python number

    def constant(self, array: Any) -> Any:
        """A constant itself."""
        return array

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The results of an operation, from numpy where it rounds as XLA does."""
        name = eqn.primitive.name
        if name in PLACEMENTS:
            return ins  # jax takes one only on the mesh that the port was traced on
        if any(map(is_key, ins)):
            return self._bind(eqn, ins)
        if name in NUMPY_FUNCTIONS and (name != "div" or "float" in str(eqn.outvars[0].aval.dtype)):
            return [NUMPY_FUNCTIONS[name](*ins)]
        if name in NUMPY_RULES and not _sums_narrowly(eqn):
            return [NUMPY_RULES[name](eqn, *map(np.asarray, ins))]
        if name == "select_n" and len(ins) == 3:
            return [np.where(ins[0], ins[2], ins[1])]
        return self._bind(eqn, ins)

    def _bind(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        # Of one with a body, as of `shard_map`, jax would compile each operation of the body again in every run.
        return compile_equation(eqn)(*ins) if inner_jaxprs(eqn) else _bind_equation(eqn, *ins)

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `scan`, iteration by iteration."""
        loop = read_scan(eqn)
        fixed, carry, scanned = loop.split(ins)
        slices = [value if is_key(value) else np.asarray(value) for value in scanned]
        stacked: list[list[Any]] = []
        for iteration in loop.iterations:
            outs = self.in_loop().run(loop.body, [*fixed, *carry, *(value[iteration] for value in slices)])
            carry = outs[: loop.carries]
            stacked.append(outs[loop.carries :])
        if loop.reverse:
            stacked.reverse()
        if not stacked:
            return [*carry, *(jnp.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars[loop.carries :])]
        return [*carry, *map(_stack, zip(*stacked, strict=True))]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """A `while_loop`, iteration by iteration."""
        loop = read_while(eqn)
        for_test, for_body, carry = loop.split(ins)
        while bool(np.asarray(self.in_loop().run(loop.test, [*for_test, *carry])[0])):
            carry = self.in_loop().run(loop.body, [*for_body, *carry])
        return carry

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """The branch that is taken."""
        branches = eqn.params["branches"]
        return self.in_loop().run(branches[min(max(int(np.asarray(ins[0])), 0), len(branches) - 1)], ins[1:])


def _bind_equation(eqn: Any, *ins: Any) -> Sequence[Any]:
    return bind_equation(eqn, ins)


@lru_cache(maxsize=MOST_COMPILED)
def compile_equation(eqn: Any) -> Callable[..., Sequence[Any]]:
    """Compile an equation alone; equations are equal only by identity (jax 0.10.2, `core.py`, `JaxprEqn`)."""
    return jax.jit(partial(_bind_equation, eqn))


def _sums_narrowly(eqn: Any) -> bool:
    """Whether it is a sum in fewer digits than float32: numpy rounds every partial sum to them, XLA only some.

    Of 512 bfloat16 numbers numpy's sum was 4 times as far off (jax 0.10.2, CPU).
    """
    dtype = eqn.outvars[0].aval.dtype
    return eqn.primitive.name == "reduce_sum" and str(dtype) in FLOAT_DTYPES and dtype.itemsize < FULL_ITEMSIZE


def _stack(values: Sequence[Any]) -> Any:
    return (jnp if is_key(values[0]) else np).stack(values)


class _ObservedEvaluation(EagerEvaluation):
    """Evaluation that shows every equation to a callback, those inside loops excepted."""

    def __init__(self, seen: EquationCallback) -> None:
        self.seen = seen

    def in_loop(self) -> EagerEvaluation:
        return EagerEvaluation()

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        outs = super().step(eqn, ins)
        if eqn.primitive.name not in CALLS:
            self.seen((*self.calls, eqn), ins, outs)
        return outs
