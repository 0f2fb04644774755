"""Value numbering: names for a program's outputs, such that equal names mean the same operations on the same inputs.

Calls are inlined; views, commutative operands, squares and dimension orders have one normal form (`terms.py`,
`contractions.py`); loops are compared by their bodies (`loops.py`). An unknown primitive is an uninterpreted symbol:
equal only to itself on equal operands. Sound, not complete: unequal names prove nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equiv.core.output_name import InputName, OutputName
from equiv.programs.content import digest, is_jax_primitive, read_operation
from equiv.programs.jaxpr import Interpreter, read_scan, read_while
from equiv.programs.primitives import COMMUTATIVE, ELEMENTWISE, IDENTITIES, NUMPY_FUNCTIONS, REDUCTIONS
from equiv.programs.program import Program
from equiv.programs.prover import contractions, loops, rules
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.terms import (
    IGNORED_PARAMS,
    TermView,
    apply_elementwise,
    broadcast_term,
    constant_view,
    dtype_name,
    literal_view,
    new_term,
    relevant_params,
    reshape_term,
    transpose_term,
)


@dataclass
class Numbering(Interpreter[TermView]):
    """The names given so far, and the enabled rules.

    Attributes:
        algebra: rewrites of real arithmetic; none by default.
        reshaped: reshaped term to the value that was reshaped.
        nest: the enclosing loops, and what loops stacked.
    """

    algebra: Algebra = field(default_factory=Algebra)
    reshaped: dict[str, TermView] = field(default_factory=dict)
    nest: loops.LoopNest = field(default_factory=loops.LoopNest)

    def literal(self, atom: Any) -> TermView:
        """Name a literal by its value and dtype."""
        return literal_view(np.asarray(atom.val, atom.aval.dtype))

    def constant(self, array: Any) -> TermView:
        """Name a constant by its bytes."""
        return literal_view(array)

    def equation(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of an equation that is no call and no loop."""
        name = eqn.primitive.name
        if not is_jax_primitive(eqn.primitive):
            return number_opaque(eqn, ins)
        if name in IDENTITIES:
            return ins
        if len(eqn.outvars) == 1:
            params, aval = eqn.params, eqn.outvars[0].aval
            if name in VIEW_RULES:
                return [VIEW_RULES[name](self, eqn, ins[0])]
            # Between dtypes of two widths a bitcast changes the shape, and is not elementwise.
            if name in ELEMENTWISE and (name != "bitcast_convert_type" or ins[0].shape == aval.shape):
                return [_number_elementwise(self.algebra, name, params, ins, aval)]
            if (value := _number_contraction(self.algebra, name, params, ins, aval)) is not None:
                return [value]
        return number_opaque(eqn, ins)

    def scan(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `scan`: its body is numbered under the name of the loop."""
        return loops.number_scan(read_scan(eqn), ins, self.run, self.nest)

    def while_loop(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `while_loop`."""
        return loops.number_while(read_while(eqn), ins, self.run, self.nest)

    def cond(self, eqn: Any, ins: list[TermView]) -> list[TermView]:
        """Name the results of a `cond` or `switch`."""
        return loops.number_cond(eqn, ins, self.run)


def number_program(
    program: Program, numbering: Numbering | None = None, aliases: Mapping[InputName, InputName] | None = None
) -> dict[OutputName, TermView]:
    """Number every output of a program; two names are equal only if they are the same computation.

    Args:
        program: the program to number.
        numbering: the enabled rewrites; None: none.
        aliases: input to another input that has the same value.
    """
    numbering, aliases = numbering or Numbering(), aliases or {}
    pairs = zip(program.inputs, program.jaxpr.in_avals, strict=True)
    inputs = [new_term(input_term(aliases.get(name, name)), aval.shape, aval.dtype) for name, aval in pairs]
    return dict(zip(program.outputs, numbering.run(program.jaxpr, inputs), strict=True))


def input_term(name: InputName) -> str:
    """The term of a program's input; a leaf and a batch entry that read alike have different terms."""
    return digest("input", name.kind, name.path, name.leaf)


def number_opaque(eqn: Any, ins: Sequence[TermView]) -> list[TermView]:
    """Number an operation with an unknown primitive."""
    key = [read_operation(eqn, IGNORED_PARAMS), [value.name for value in ins]]
    avals = [var.aval for var in eqn.outvars]
    return [
        new_term(digest("opaque", key, index, aval.shape, dtype_name(aval.dtype)), aval.shape, aval.dtype)
        for index, aval in enumerate(avals)
    ]


def _number_contraction(
    algebra: Algebra, name: str, params: dict[str, Any], ins: list[TermView], aval: Any
) -> TermView | None:
    """Number a contraction or reduction; scales are moved out where a rewrite is enabled. None where no rule fits."""
    if name == "dot_general":
        return rules.rewrite_contraction(
            algebra, ins, lambda pair: contractions.number_dot_general(params, pair, aval), aval
        )
    if name not in REDUCTIONS:
        return None
    value = contractions.number_reduction(name, params, ins[0], aval)
    if name != "reduce_sum" or value is None or "float" not in dtype_name(aval.dtype):
        return value
    return rules.rewrite_sum(
        algebra, ins[0], params["axes"], lambda one: contractions.number_reduction(name, params, one, aval), aval
    )


FOLDED = frozenset(("add", "sub", "mul", "div", "neg", "sqrt", "max", "min"))
"""Operations on constants whose result is named by its number."""


def _number_elementwise(
    algebra: Algebra, name: str, params: dict[str, Any], ins: list[TermView], aval: Any
) -> TermView:
    dtype = dtype_name(aval.dtype)
    if name == "convert_element_type" and ins[0].dtype == dtype:
        return ins[0]
    if name in FOLDED and all(value.constant is not None for value in ins):
        with np.errstate(all="ignore"):
            folded = np.asarray(NUMPY_FUNCTIONS[name](*(value.constant for value in ins)))
        if dtype_name(folded.dtype) == dtype:  # numpy's integer division gives floats
            return constant_view(folded, aval.shape)
    # The choice is known, so that the other operands do not count.
    if name == "select_n" and ins[0].constant is not None:
        return ins[1 + int(ins[0].constant)]
    # Exact for every number, and so no rewrite; `x + 0` is not: it turns -0 into 0.
    if name in ("mul", "div") and ins[1].constant == 1 and ins[0].shape == aval.shape:
        return ins[0]
    if algebra.rules and (value := rules.rewrite_operation(algebra, name, params, ins, aval)) is not None:
        return value
    name, ins = _normal_form(name, params, ins)
    extra = relevant_params(params) if name not in ("square", "convert_element_type") else []
    return apply_elementwise((name, extra), ins, aval.shape, dtype, name in COMMUTATIVE)


def _normal_form(name: str, params: dict[str, Any], ins: list[TermView]) -> tuple[str, list[TermView]]:
    # jax lowers all three to the product of the value with itself.
    if (name == "integer_pow" and params["y"] == 2) or (name == "mul" and ins[0] == ins[1]):
        return "square", ins[:1]
    return ("add" if name == "add_any" else name), ins


def _number_reshape(numbering: Numbering, eqn: Any, value: TermView) -> TermView:
    shape = eqn.outvars[0].aval.shape
    # A reshape of a reshape is one of the source, unless something was permuted or repeated between the two.
    base = numbering.reshaped.get(value.term) if value.plain else None
    source = base or value
    result = reshape_term(source, shape)
    if result.term != source.term:  # a new term, not a view of the source
        numbering.reshaped.setdefault(result.term, source)
    return result


VIEW_RULES: dict[str, Callable[[Numbering, Any, TermView], TermView]] = {
    "reshape": _number_reshape,
    "squeeze": _number_reshape,
    "broadcast_in_dim": lambda _, eqn, value: broadcast_term(
        value, eqn.outvars[0].aval.shape, eqn.params["broadcast_dimensions"]
    ),
    "transpose": lambda _, eqn, value: transpose_term(value, eqn.params["permutation"]),
}
