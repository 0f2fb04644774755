"""Value numbering: names for a program's outputs, such that equal names mean the same operations on the same inputs.

Calls are inlined; views, commutative operands, squares and dimension orders have one normal form (`terms.py`,
`contractions.py`); loops are compared by their bodies (`loops.py`). An unknown primitive is an uninterpreted symbol:
equal only to itself on equal operands. Sound, not complete: unequal names prove nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from equiv.core.output_name import InputName, OutputName
from equiv.programs.content import Content, digest, read_operation
from equiv.programs.jaxpr import Interpreter, is_axis_effect, read_scan, read_while
from equiv.programs.primitives import (
    COMMUTATIVE,
    COMPARISONS,
    ELEMENTWISE,
    IDENTITIES,
    NUMPY_FUNCTIONS,
    is_jax_primitive,
)
from equiv.programs.program import Program
from equiv.programs.prover import loops, rules
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.chains import PartialSum, all_operands, as_written, find_chains, put_off
from equiv.programs.prover.conditions import REORDERED_SUMS
from equiv.programs.prover.digits import has_digits, reshape_digits
from equiv.programs.prover.joined import join_elementwise
from equiv.programs.prover.known_arrays import EXACT_DTYPES, name_by_content, record_array
from equiv.programs.prover.lookups import number_lookup, record_index
from equiv.programs.prover.masks import negate_mask, record_masked
from equiv.programs.prover.moves import distribute, number_move
from equiv.programs.prover.one_hot import (
    name_positions,
    number_known_sign,
    number_positions,
    record_finite,
    record_one_hot,
)
from equiv.programs.prover.rows import number_gather, number_scatter_add
from equiv.programs.prover.sharded import Shards, number_shard_map
from equiv.programs.prover.sums import number_contraction
from equiv.programs.prover.terms import (
    IGNORED_PARAMS,
    TermView,
    apply_elementwise,
    broadcast_term,
    constant_view,
    dtype_name,
    is_infinite,
    literal_view,
    new_term,
    relevant_params,
    reshape_term,
    reshaped_term,
    transpose_term,
)


@dataclass
class Numbering(Interpreter[TermView]):
    """The names given so far, and the enabled rules.

    Attributes:
        algebra: rewrites of real arithmetic; none by default.
        by_pieces: whether slices, concatenations and masks that no input decides are known as such.
        unrolled: lengths of the `scan`s that are numbered turn by turn.
        reshaped: reshaped term to the value that was reshaped.
        nest: the enclosing loops, and what loops stacked.
        shards: the enclosing `shard_map`s, and what they put together.
        later: the variables of steps of long sums that are put off.
    """

    algebra: Algebra = field(default_factory=Algebra)
    by_pieces: bool = True
    unrolled: frozenset[int] = frozenset()
    reshaped: dict[str, TermView] = field(default_factory=dict)
    nest: loops.LoopNest = field(default_factory=loops.LoopNest)
    shards: Shards = field(default_factory=Shards)
    later: set[Any] = field(default_factory=set)

    def run(self, closed: Any, inputs: Sequence[TermView], path: tuple[int, ...] = ()) -> list[TermView]:
        """Name the results of a jaxpr."""
        if self.by_pieces and REORDERED_SUMS in self.algebra.rules:
            self.later |= find_chains(closed)
        return super().run(closed, inputs, path)

    def literal(self, atom: Any) -> TermView:
        """Name a literal by its value and dtype."""
        return literal_view(np.asarray(atom.val, atom.aval.dtype))

    def constant(self, array: Any) -> TermView:
        """Name a constant by its bytes."""
        value = literal_view(array)
        if value.constant is None and value.dtype in EXACT_DTYPES and np.size(array):
            self.algebra.arrays.setdefault(value.term, np.asarray(array).squeeze())
            if value.dtype != "bool":
                self.algebra.ranges[value.term] = int(np.min(array)), int(np.max(array))
        if self.by_pieces and value.constant is None:
            value = name_positions(self.algebra, value, array)
        return self._by_content(value)

    def equation(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of an equation that is no call and no loop."""
        if self.later and self.later.issuperset(eqn.outvars[:1] or [None]):
            return [put_off(eqn, ins)]
        if any(isinstance(one, PartialSum) for one in ins):
            terms = all_operands(ins)
            # No rewrite is made of what is not finite: it is named as it is written.
            infinite = any(map(is_infinite, terms))
            return [as_written(eqn, ins) if infinite else _number_long_sum(self.algebra, terms, eqn.outvars[0].aval)]
        outs = self._name_results(eqn, ins)
        if len(outs) == 1 and is_jax_primitive(eqn.primitive):
            record_array(self.algebra.arrays, eqn, ins, outs[0])
        return [self._by_content(value) for value in outs]

    def _by_content(self, value: TermView) -> TermView:
        return name_by_content(self.algebra.arrays, self.algebra.contents, value) if self.by_pieces else value

    def _name_results(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        name = eqn.primitive.name
        if not is_jax_primitive(eqn.primitive):
            return number_opaque(eqn, ins, self.shards.bound)
        if name == "shard_map" and self.by_pieces:
            outer, self.calls = self.calls, (*self.calls, eqn)
            values = number_shard_map(self.shards, eqn, ins, self.run)
            self.calls = outer
            return number_opaque(eqn, ins, self.shards.bound) if values is None else values
        if name in IDENTITIES:
            return ins
        if name == "iota":
            return [self._number_iota(eqn)]
        if self.by_pieces and (values := number_move(self.algebra.pieces, eqn, ins)) is not None:
            return values
        if self.algebra.closes and not _is_linear(name, ins):
            for value in ins:
                self.algebra.close(value)
        if len(eqn.outvars) == 1:
            params, aval = eqn.params, eqn.outvars[0].aval
            if name in VIEW_RULES:
                return [VIEW_RULES[name](self, eqn, ins[0])]
            # Between dtypes of two widths a bitcast changes the shape, and is not elementwise.
            if name in ELEMENTWISE and (name != "bitcast_convert_type" or ins[0].shape == aval.shape):
                return [_number_elementwise(self.algebra, name, params, ins, aval)]
            if (value := number_contraction(self.algebra, name, params, ins, aval)) is not None:
                return [value]
            if self.by_pieces and name in ROWS and (value := self._number_rows(eqn, ins)) is not None:
                return [value]
            if (value := number_lookup(self.algebra, eqn, ins)) is not None:
                return [value]
        return number_opaque(eqn, ins, self.shards.bound)

    def _number_rows(self, eqn: Any, ins: list[TermView]) -> TermView | None:
        def mask(operands: list[TermView], shape: tuple[int, ...]) -> TermView:
            aval = ShapedArray(shape, np.dtype(bool))
            return self._by_content(_number_elementwise(self.algebra, "eq", {}, operands, aval))

        return ROWS[eqn.primitive.name](self.algebra, eqn, ins, mask)

    def _number_iota(self, eqn: Any) -> TermView:
        shape, axis = eqn.params["shape"], eqn.params["dimension"]
        counted = number_positions(self.algebra, shape[axis], eqn.params["dtype"]) if self.by_pieces else None
        if counted is not None:
            return broadcast_term(counted, shape, [axis])
        (value,) = number_opaque(eqn, [])
        last = eqn.params["shape"][eqn.params["dimension"]] - 1
        # In a narrow dtype positions go on at its smallest number.
        if "int" in value.dtype and last <= jnp.iinfo(value.dtype).max:
            self.algebra.ranges[value.term] = 0, last
        return value

    def scan(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `scan`: its body is numbered under the name of the loop."""
        loop = read_scan(eqn)
        if loop.length in self.unrolled:
            return loops.unroll_scan(loop, ins, self.run, self.algebra.pieces)
        return loops.number_scan(loop, ins, self.run, self.nest, self.algebra.pieces)

    def while_loop(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `while_loop`."""
        return loops.number_while(read_while(eqn), ins, self.run, self.nest)

    def cond(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `cond` or `switch`."""
        return loops.number_cond(eqn, ins, self.run)


def number_program(
    program: Program,
    numbering: Numbering | None = None,
    aliases: Mapping[InputName, InputName] | None = None,
    bounds: Mapping[str, int] | None = None,
) -> dict[OutputName, TermView]:
    """Number every output of a program; two names are equal only if they are the same computation.

    Args:
        program: the program to number.
        numbering: the enabled rewrites; None: none.
        aliases: input to another input that has the same value.
        bounds: batch entry of whole numbers to the number that all of its values are below; none is negative.
    """
    numbering, aliases, bounds = numbering or Numbering(), aliases or {}, bounds or {}
    pairs = zip(program.inputs, program.jaxpr.in_avals, strict=True)
    inputs = [new_term(input_term(aliases.get(name, name), aval.shape), aval.shape, aval.dtype) for name, aval in pairs]
    for name, value in zip(program.inputs, inputs, strict=True):
        if name.kind == "batch" and name.path in bounds:
            numbering.algebra.ranges[value.term] = 0, bounds[name.path] - 1
    return dict(zip(program.outputs, numbering.run(program.jaxpr, inputs), strict=True))


def input_term(name: InputName, shape: Sequence[int]) -> str:
    """The term of a program's input; a leaf and a batch entry of one path have different terms.

    So have inputs of two shapes: a sum over all of either would be one.
    """
    return digest("input", name.kind, name.path, name.leaf, tuple(shape))


def number_opaque(eqn: Any, ins: Sequence[TermView], bound: tuple[Content, ...] = ()) -> list[TermView]:
    """Number an operation with an unknown primitive, which may read the axes of the enclosing meshes."""
    meshes = [bound] if any(map(is_axis_effect, eqn.effects)) else []
    key = [read_operation(eqn, IGNORED_PARAMS), [value.name for value in ins], *meshes]
    avals = [var.aval for var in eqn.outvars]
    return [
        new_term(digest("opaque", key, index, aval.shape, dtype_name(aval.dtype)), aval.shape, aval.dtype)
        for index, aval in enumerate(avals)
    ]


def _is_linear(name: str, ins: Sequence[TermView]) -> bool:
    """Whether the result of an operation is a sum of the same terms as its operands are, or a view of it."""
    if name in ("mul", "div"):
        return any(value.constant is not None for value in ins)
    return name in rules.ADDITIVE or name in VIEW_RULES or name in ("neg", "convert_element_type")


FOLDED = COMPARISONS | frozenset(("add", "sub", "mul", "div", "neg", "sqrt", "max", "min", "not", "and", "or"))
"""Operations on constants whose result is named by its number."""


def _number_elementwise(
    algebra: Algebra, name: str, params: dict[str, Any], ins: list[TermView], aval: Any
) -> TermView:
    if any(map(has_digits, ins)):
        return join_elementwise(
            ins,
            aval.shape,
            algebra.splits,
            lambda joined, shape: _number_elementwise(algebra, name, params, joined, ShapedArray(shape, aval.dtype)),
        )

    def again(operands: list[TermView], shape: tuple[int, ...]) -> TermView:
        return _number_elementwise(algebra, name, params, operands, ShapedArray(shape, aval.dtype))

    result = distribute(algebra.pieces, ins, tuple(aval.shape), again)
    if result is None:
        result = _name_elementwise(algebra, name, params, ins, aval)
        places = [tuple(axis if one.shape else None for one in ins) for axis in range(len(result.shape))]
        algebra.pieces.record(result, ins, places, again)
    return result


def _number_long_sum(algebra: Algebra, ins: list[TermView], aval: Any) -> TermView:
    """The sum of many operands, each of the result's shape or a scalar."""
    shape, dtype = tuple(aval.shape), dtype_name(aval.dtype)

    def again(operands: list[TermView], own: tuple[int, ...]) -> TermView:
        return _number_long_sum(algebra, operands, ShapedArray(own, aval.dtype))

    if any(map(has_digits, ins)):
        return join_elementwise(ins, shape, algebra.splits, again)
    result = algebra.sum(0.0, [(one, 1.0) for one in ins], shape, dtype)
    algebra.pieces.record(
        result, ins, [tuple(axis if one.shape else None for one in ins) for axis in range(len(shape))], again
    )
    algebra.record(result, REORDERED_SUMS)
    return result


def _name_elementwise(algebra: Algebra, name: str, params: dict[str, Any], ins: list[TermView], aval: Any) -> TermView:
    dtype = dtype_name(aval.dtype)
    if name == "convert_element_type" and ins[0].dtype == dtype:
        return ins[0]
    # What numpy and XLA compute of complex numbers may differ in the last digit.
    if name in FOLDED and all(value.constant is not None and "complex" not in value.dtype for value in ins):
        with np.errstate(all="ignore"):
            folded = np.asarray(NUMPY_FUNCTIONS[name](*(value.constant for value in ins)))
        if dtype_name(folded.dtype) == dtype:  # numpy's integer division gives floats
            return constant_view(folded, aval.shape)
    if name == "convert_element_type" and (number := _convert_constant(ins[0], aval.dtype)) is not None:
        return constant_view(number, aval.shape)
    # The choice is known, so that the other operands do not count.
    if name == "select_n" and ins[0].constant is not None and 0 <= ins[0].constant < len(ins) - 1:
        return ins[1 + int(ins[0].constant)]
    # Exact for every number, and so no rewrite; `x + 0` is not: it turns -0 into 0. Nor is it of complex numbers, whose
    # other part is multiplied by 0.
    if name in ("mul", "div") and ins[1].constant == 1 and ins[0].shape == aval.shape and "complex" not in dtype:
        return ins[0]
    if (known := _absorb_neutral(name, ins, tuple(aval.shape))) is not None:
        return known
    if name == "not" and dtype == "bool":
        return negate_mask(algebra, ins[0])
    if name in SIGNED and (known := number_known_sign(algebra, name, ins, tuple(aval.shape), dtype)) is not None:
        return known
    if algebra.rules and (value := rules.rewrite_operation(algebra, name, params, ins, aval)) is not None:
        return value
    name, ins = _normal_form(name, params, ins)
    extra = relevant_params(params) if name not in ("square", "convert_element_type") else []
    result = apply_elementwise((name, extra), ins, aval.shape, dtype, name in COMMUTATIVE)
    record_index(algebra, name, ins, result)
    if name == "exp" and "float" in dtype:  # a complex one has no sign
        algebra.exponentials.add(result.term)
    if name == "is_finite":
        record_finite(algebra, ins, result)
    if name == "eq":
        record_one_hot(algebra, ins, result)
    if name == "select_n" and len(ins) == 3:
        record_masked(algebra, ins, result)
    return result


SIGNED = frozenset(("abs", "sign", "ge", "select_n"))
"""Operations whose result can be known by the sign of the operand, or because a maximum is finite."""

NEUTRAL = {"max": -np.inf, "min": np.inf, "and": True, "or": False}
"""Operation to the number that changes no other; of whole numbers no operation has one here."""


def _absorb_neutral(name: str, ins: list[TermView], shape: tuple[int, ...]) -> TermView | None:
    """The other operand of an operation with its neutral element; None where there is none."""
    if name not in NEUTRAL or len(ins) != 2 or ("float" not in ins[0].dtype and ins[0].dtype != "bool"):
        return None
    for one, other in (ins, ins[::-1]):
        if one.constant is not None and one.constant == NEUTRAL[name]:
            return broadcast_term(other, shape, range(len(other.shape)))  # a scalar is repeated
    return None


def _convert_constant(value: TermView, dtype: Any) -> Any:
    """A known whole number or truth value in a float dtype that has it exactly; else None."""
    if value.constant is None or not ("int" in value.dtype or value.dtype == "bool"):
        return None
    with np.errstate(over="ignore"):  # 70000 is no float16
        number = np.asarray(value.constant).astype(dtype) if "float" in dtype_name(dtype) else None
    return number if number is not None and np.isfinite(number) and int(number) == int(value.constant) else None


def _normal_form(name: str, params: dict[str, Any], ins: list[TermView]) -> tuple[str, list[TermView]]:
    # jax lowers all three to the product of the value with itself, but the square of a complex number to another one.
    twice = (name == "integer_pow" and params["y"] == 2) or (name == "mul" and ins[0] == ins[1])
    if twice and "complex" not in ins[0].dtype:
        return "square", ins[:1]
    return ("add" if name == "add_any" else name), ins


def _number_reshape(numbering: Numbering, eqn: Any, value: TermView) -> TermView:
    shape = eqn.outvars[0].aval.shape
    # A reshape of a reshape is one of the source, unless something was permuted or repeated between the two.
    source = (numbering.reshaped.get(value.term) if value.plain else None) or value
    view = reshape_term(source, shape)
    if view is None:
        view = reshape_digits(source, shape)
        source = reshape_digits(source, (prod(shape),)) or source
    if view is None:  # as from 2 x 3 to 3 x 2
        view = reshaped_term(source, shape)
        numbering.reshaped.setdefault(view.term, source)
    return view


def _reorder_and_reshape(numbering: Numbering, eqn: Any, value: TermView) -> TermView:
    order = eqn.params["dimensions"]  # None but for `lax.reshape` with axes in another order
    return _number_reshape(numbering, eqn, value if order is None else transpose_term(value, order))


def _number_tile(numbering: Numbering, eqn: Any, value: TermView) -> TermView:
    # Each axis after one along which the whole is repeated; both are merged.
    pairs = [size for pair in zip(eqn.params["reps"], value.shape, strict=True) for size in pair]
    repeated = broadcast_term(value, pairs, range(1, len(pairs), 2))
    return _number_reshape(numbering, eqn, repeated)


ROWS = {"gather": number_gather, "scatter-add": number_scatter_add}
"""Primitive to its rule, for known rows and for one index."""

VIEW_RULES: dict[str, Callable[[Numbering, Any, TermView], TermView]] = {
    "reshape": _reorder_and_reshape,
    "squeeze": _number_reshape,
    "broadcast_in_dim": lambda _, eqn, value: broadcast_term(
        value, eqn.outvars[0].aval.shape, eqn.params["broadcast_dimensions"]
    ),
    "transpose": lambda _, eqn, value: transpose_term(value, eqn.params["permutation"]),
    "tile": lambda numbering, eqn, value: _number_tile(numbering, eqn, value),
}
