"""Interpret a program once more while it is traced for compilation, and observe what it exercises on the way.

Small statistics become outputs beside its own: nothing is run twice. Only what depends on the program's inputs is
observed: a branch that a constant decides can never be taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal as OneOf

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun

from equiv.compat import bind_equation
from equiv.core.output_name import OutputName
from equiv.core.scope import ExerciseKind
from equiv.programs.exercise import Site, merge_statistics
from equiv.programs.jaxpr import Interpreter, locate_equation, read_scan, read_while, visit_equations
from equiv.programs.program import Program

COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "max": ">", "min": "<"}
"""Primitive to the question that it decides about its first operand, where the second is a threshold."""

MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}

SAME_ELEMENTS = ("broadcast_in_dim", "reshape", "squeeze", "copy", "convert_element_type", "stop_gradient")
"""Primitives whose result is one number wherever their operand is."""

ZERO_KINKS = ("abs", "sign", "sqrt")
"""Primitives that have no derivative at 0, or another one on each side."""

EXTREMES = ("argmax", "argmin", "reduce_max", "reduce_min")
"""Primitives that choose one of several elements, so that a tie decides where gradients go."""

MAX_FLOAT = float(np.finfo("float32").max)

MAX_ROWS = 100_000
"""Largest table whose rows are marked one by one; of a larger one only the number is said."""


@dataclass(frozen=True)
class _Value:
    """An array.

    Attributes:
        array: it, under the trace.
        varies: whether it depends on the program's inputs.
        element: its one element where that is known.
        drawn: whether all that it depends on are draws.
        wraps: whether it says which indices are negative, as jax asks of any index.
    """

    array: Any
    varies: bool
    element: float | None = None
    drawn: bool = False
    wraps: bool = False


class _Observer(Interpreter[_Value]):
    """An interpretation under a trace of jax that computes the program, and what it exercises on the way.

    Attributes:
        training: whether the program is a train step.
        found: site to statistics, one for every place and turn of a loop around it.
    """

    def __init__(self, training: bool = False) -> None:
        self.training = training
        self.found: list[tuple[Site, Any]] = []

    def _site(
        self, kind: ExerciseKind | OneOf["overflow"], eqn: Any, bound: float = 0.0, relation: str = "", **marks: bool
    ) -> Site:
        return Site(kind, self._where(eqn), bound, relation, self.training, **marks)

    def literal(self, atom: Any) -> _Value:
        return self.constant(np.asarray(atom.val, atom.aval.dtype))

    def constant(self, array: Any) -> _Value:
        return _Value(array, False, _element(array))

    def equation(self, eqn: Any, ins: list[_Value]) -> Sequence[_Value]:
        name, varies = eqn.primitive.name, any(one.varies for one in ins)
        outs = bind_equation(eqn, [one.array for one in ins])
        if varies:
            self._observe(eqn, name, ins)
            self._observe_ties(eqn, name, ins, outs)
        moved = name in SAME_ELEMENTS and ins
        element, wraps = (ins[0].element, ins[0].wraps) if moved else (None, _is_index_wrap(name, ins))
        return [_Value(out, varies, element, _is_drawn(ins), wraps) for out in outs]

    def scan(self, eqn: Any, ins: list[_Value]) -> Sequence[_Value]:
        loop, varies = read_scan(eqn), any(one.varies for one in ins)
        fixed, carries, scanned = loop.split(ins)
        drawn, sites = _is_drawn(ins), list[Site]()

        def turn(carry: list[Any], slices: list[Any]) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
            inner = self._inside(eqn)
            given = [*fixed, *(_Value(one, varies, drawn=drawn) for one in (*carry, *slices))]
            outs = [one.array for one in inner.run(loop.body, given)]
            sites[:] = [site for site, _ in inner.found]
            return outs[: loop.carries], (outs[loop.carries :], [one for _, one in inner.found])

        given = [[one.array for one in part] for part in (carries, scanned)]
        carry, (stacked, seen) = jax.lax.scan(turn, *given, length=loop.length, reverse=loop.reverse)
        for site, statistics in zip(sites, seen, strict=True):
            if loop.length:
                self.found.append((site, merge_statistics(site, statistics)))
        return [_Value(one, varies, drawn=drawn) for one in (*carry, *stacked)]

    def while_loop(self, eqn: Any, ins: list[_Value]) -> Sequence[_Value]:
        loop, varies = read_while(eqn), any(one.varies for one in ins)
        for_test, for_body, carry = loop.split([one.array for one in ins])
        test, body = jaxpr_as_fun(loop.test), jaxpr_as_fun(loop.body)
        turns, outs = jax.lax.while_loop(
            lambda state: test(*for_test, *state[1])[0],
            lambda state: (state[0] + 1, body(*for_body, *state[1])),
            (jnp.int32(0), list(carry)),
        )
        if varies:
            self.found.append((self._site("loop", eqn), jnp.stack([turns, turns])))
        return [_Value(one, varies, drawn=_is_drawn(ins)) for one in outs]

    def cond(self, eqn: Any, ins: list[_Value]) -> Sequence[_Value]:
        if ins[0].varies:
            count = len(eqn.params["branches"])
            taken = jnp.arange(count) == jnp.clip(jnp.asarray(ins[0].array, "int32"), 0, count - 1)
            self.found.append((self._site("branch", eqn, count), taken))
        return self.equation(eqn, ins)

    def _inside(self, eqn: Any) -> "_Observer":
        inner = _Observer(self.training)
        inner.calls = (*self.calls, eqn)
        return inner

    def _where(self, eqn: Any) -> str:
        line, user_line, _ = locate_equation((*self.calls, eqn))
        found = user_line or line
        return found.short if found else ""

    def _observe(self, eqn: Any, name: str, ins: list[_Value]) -> None:
        if name == "gather":
            self._observe_rows(eqn, ins)
        elif name in COMPARISONS and not _is_index_wrap(name, ins):
            relation = COMPARISONS[name]
            for value, threshold, asked in ((ins[0], ins[1], relation), (ins[1], ins[0], MIRRORED[relation])):
                self._observe_range(eqn, value, threshold, asked)
        elif name == "select_n":
            self._observe_choice(eqn, ins)
        elif name == "exp":
            self._observe_overflow(eqn, ins[0])
        elif name == "clamp" and not _is_index(ins[1]):
            self._observe_range(eqn, ins[1], ins[0], "<")
            self._observe_range(eqn, ins[1], ins[2], ">")

    def _observe_range(self, eqn: Any, value: _Value, threshold: _Value, relation: str) -> None:
        bound = threshold.element
        if bound is None or _is_limit(bound, value.array) or threshold.varies or not value.varies or _is_in_draw(eqn):
            return
        if jnp.size(value.array):
            numbers = jnp.asarray(value.array, "float32")
            kink = _is_float(value) and not value.drawn
            site = self._site("threshold", eqn, bound, relation, kink=kink, drawn=value.drawn)
            self._add_range(site, numbers)

    def _observe_overflow(self, eqn: Any, value: _Value) -> None:
        """Observe what an exponential is taken of: from some number on it overflows."""
        dtype = jnp.result_type(value.array)
        if value.varies and jnp.issubdtype(dtype, jnp.floating) and jnp.size(value.array):
            bound = float(np.log(float(jnp.finfo(dtype).max)))
            self._add_range(self._site("overflow", eqn, bound, ">"), jnp.asarray(value.array, "float32"))

    def _add_range(self, site: Site, numbers: Any) -> None:
        ties = jnp.sum(numbers == jnp.float32(site.bound), dtype="float32")
        self.found.append((site, jnp.stack([numbers.min(), numbers.max(), ties])))

    def _observe_choice(self, eqn: Any, ins: list[_Value]) -> None:
        """Mark the operands that a select takes elements of; what a draw decides is no branch of the model."""
        chosen, count = ins[0], len(ins) - 1
        if chosen.varies and not (chosen.drawn or chosen.wraps) and jnp.size(chosen.array):
            taken = jnp.stack([jnp.any(chosen.array == index) for index in range(count)])
            self.found.append((self._site("branch", eqn, count, "select"), taken))

    def _observe_ties(self, eqn: Any, name: str, ins: list[_Value], outs: Sequence[Any]) -> None:
        """Observe whether a tie or a zero decides; one with a number is observed as a threshold already."""
        if ins and _is_float(ins[0]) and jnp.size(ins[0].array) and not _is_drawn(ins):
            met = _find_ties(eqn, name, ins, outs)
            if met is not None:
                self.found.append((self._site("kink", eqn, 0.0, name, kink=True), jnp.any(met)[None]))

    def _observe_rows(self, eqn: Any, ins: list[_Value]) -> None:
        """Mark the rows that a lookup reads: one axis is indexed, and one element of it is taken at a time."""
        axes, table = eqn.params["dimension_numbers"].start_index_map, jnp.shape(ins[0].array)
        if len(axes) != 1 or not ins[1].varies or eqn.params["slice_sizes"][axes[0]] != 1:
            return
        rows = table[axes[0]]
        if not 1 < rows <= MAX_ROWS:
            return
        indices = jnp.clip(jnp.asarray(ins[1].array, "int32").reshape(-1), 0, rows - 1)
        marked = jnp.zeros(rows, bool).at[indices].set(True)
        self.found.append((self._site("rows", eqn, rows), marked))


def _is_float(value: _Value) -> bool:
    return jnp.issubdtype(jnp.result_type(value.array), jnp.floating)


def _is_drawn(ins: Sequence[_Value]) -> bool:
    """Whether all that operands depend on are draws."""
    varying = [one for one in ins if one.varies]
    return bool(varying) and all(one.drawn for one in varying)


def _find_ties(eqn: Any, name: str, ins: Sequence[_Value], outs: Sequence[Any]) -> Any:
    """Mark where an operation meets a tie or a zero at which it has a kink; None where it has none."""
    first = ins[0].array
    if name in ZERO_KINKS:
        return first == 0
    if name in EXTREMES:
        axes = tuple(eqn.params["axes"])
        extreme = (jnp.max if name.endswith("max") else jnp.min)(first, axis=axes, keepdims=True)
        return jnp.sum(first == extreme, axis=axes) > 1 if extreme.size < first.size else None
    if name in COMPARISONS or name in ("eq", "ne"):
        if eqn.invars[0] is eqn.invars[1]:
            return None  # whether it is a number
        asked = name in COMPARISONS and any(one.element is not None for one in ins)
        return None if asked else first == ins[1].array
    if name == "sort":
        axis, keys = eqn.params["dimension"], outs[: eqn.params["num_keys"]]
        return jnp.all(jnp.stack([jnp.diff(key, axis=axis) == 0 for key in keys]), axis=0)
    if name == "top_k":
        ranked = -jnp.sort(-first, axis=-1)[..., : outs[0].shape[-1] + 1]
        return ranked[..., 1:] == ranked[..., :-1]
    if name == "reduce_window_max":
        # A window whose largest element is its smallest: less than every tie, and never more.
        return outs[0] == -eqn.primitive.bind(-first, **eqn.params)
    return None


def _is_limit(bound: float, array: Any) -> bool:
    """Whether no value lies beyond a bound: infinities and the largest float, where a maximum starts, and the largest
    whole number, at which optax's counters stop."""
    dtype = jnp.result_type(array)
    whole = jnp.issubdtype(dtype, jnp.integer)
    return abs(bound) >= (jnp.iinfo(dtype).max if whole else MAX_FLOAT)


def _is_index(value: _Value) -> bool:
    """Whether a value is one whole number: jax clamps the index of a switch and the start of a slice."""
    return jnp.ndim(value.array) == 0 and jnp.issubdtype(jnp.result_type(value.array), jnp.integer)


def _is_index_wrap(name: str, ins: Sequence[_Value]) -> bool:
    """Whether a comparison is how jax wraps a negative index: `index < 0`, of whole numbers."""
    return name == "lt" and ins[1].element == 0 and jnp.issubdtype(jnp.result_type(ins[0].array), jnp.integer)


def _is_in_draw(eqn: Any) -> bool:
    """Whether an equation keeps a draw of `jax.random` in its bounds, as in `uniform`: no choice of the model."""
    traceback = eqn.source_info.traceback
    return (
        eqn.primitive.name in ("max", "min", "clamp")
        and traceback is not None
        and any("jax/_src/random" in one.file_name for one in traceback.frames)
    )


def _element(array: Any) -> float | None:
    """The one number that an array consists of; None where there are several, or it is no number."""
    if array.size != 1 or jnp.issubdtype(array.dtype, jax.dtypes.extended) or jnp.iscomplexobj(array):
        return None
    return float(np.asarray(array).reshape(()))


def is_worth_observing(program: Program) -> bool:
    """Whether a program may exercise more than the calls that it contains: thresholds other than 0, and branches.

    Gradients and train steps contain a call whole, and observing that again would cost compilation.
    """
    return any(
        eqn.primitive.name == "cond" or (eqn.primitive.name in (*COMPARISONS, "clamp") and _may_have_threshold(eqn))
        for _, eqn in visit_equations(program.jaxpr)
    )


def _may_have_threshold(eqn: Any) -> bool:
    """Whether an operand is a constant other than 0, or none is one and one is a number that a function was given."""
    known = [atom for atom in eqn.invars if isinstance(atom, Literal)]
    if not known:
        return any(np.shape(atom.aval) == () for atom in eqn.invars)
    return any(np.ndim(atom.val) == 0 and atom.val != 0 and not _is_limit(float(atom.val), atom.val) for atom in known)


def observe_program(program: Program, given: Sequence[Any]) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    """Compute a program under a trace of jax: its outputs, and what it exercises.

    Args:
        program: the program.
        given: its inputs, in their order.
    """
    observer = _Observer(program.name.kind == "step")
    named = zip(program.inputs, given, strict=True)
    outs = observer.run(program.jaxpr, [_Value(one, True, drawn=name.kind == "draw") for name, one in named])
    return dict(zip(program.outputs, (one.array for one in outs), strict=True)), observer.found
