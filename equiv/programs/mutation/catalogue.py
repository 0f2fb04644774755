"""The catalogue of faults: each stands for a bug that people have written when porting a model."""

from dataclasses import dataclass

from jax import lax
from jax import numpy as jnp

from equiv.compat import reduce_by
from equiv.programs.mutation import arithmetic, leaves, loops, shapes
from equiv.programs.mutation.edits import EquationFault
from equiv.programs.mutation.leaves import ProgramFault
from equiv.programs.primitives import ADDITIONS, BINARY_ARITHMETIC


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name.
        stands_for: the bug it stands for.
        equation: the edits that it makes at an equation.
        program: the edits that it makes to a program's inputs or outputs.
    """

    kind: str
    stands_for: str
    equation: EquationFault | None = None
    program: ProgramFault | None = None


def is_epsilon(number: float) -> bool:
    """Whether a constant may be an epsilon, added to avoid division by zero."""
    return 0 < abs(number) <= 1e-2


def is_fraction(number: float) -> bool:
    """Whether a constant may be a rate, a momentum or a decay."""
    return 0 < number < 1


def is_element_count(number: float) -> bool:
    """Whether a constant may be a number of elements."""
    return number >= 2 and number.is_integer()


def _n_less_one(number: float) -> float:
    """`n - 1` for `n`, and `1 / (n - 1)` for `1 / n`."""
    return number - 1 if number >= 1 else 1 / (round(1 / number) - 1)


def _is_mean_factor(number: float) -> bool:
    return is_element_count(number) or (0 < number <= 0.5 and abs(1 / number - round(1 / number)) < 1e-9)


CONSTANT_FAULTS = (
    Fault(
        "eps x 10",
        "eps 1e-5 where the other library has 1e-6",
        arithmetic.change_constant(ADDITIONS, is_epsilon, lambda c: c * 10),
    ),
    Fault(
        "eps / 10",
        "eps 1e-6 where the other library has 1e-5",
        arithmetic.change_constant(ADDITIONS, is_epsilon, lambda c: c / 10),
    ),
    Fault(
        "eps left out",
        "the eps under a root or in a quotient forgotten",
        arithmetic.drop_constant(ADDITIONS, is_epsilon),
    ),
    Fault("momentum for decay", "momentum taken for 1 - momentum", arithmetic.change_average_weight(lambda c: 1 - c)),
    Fault(
        "other momentum",
        "a running average with the other library's default",
        arithmetic.change_average_weight(lambda c: c**2),
    ),
    Fault(
        "c for 1 - c",
        "a rate for its complement",
        arithmetic.change_constant(("mul", "div"), is_fraction, lambda c: 1 - c),
    ),
    Fault(
        "constant x 2",
        "a scale applied twice, a factor 2 forgotten",
        arithmetic.change_constant(BINARY_ARITHMETIC, bool, lambda c: c * 2),
    ),
    Fault(
        "constant x 1.01",
        "a constant typed wrongly",
        arithmetic.change_constant(BINARY_ARITHMETIC, bool, lambda c: c * 1.01),
    ),
    Fault("constant's sign", "a sign forgotten", arithmetic.change_constant(BINARY_ARITHMETIC, bool, lambda c: -c)),
    Fault(
        "n - 1 for n",
        "the unbiased variance for the biased one",
        arithmetic.change_constant(("div", "mul"), _is_mean_factor, _n_less_one),
    ),
    Fault("power + 1", "bias correction or power one step late", arithmetic.increase_power),
    Fault(
        "gelu constant",
        "0.044715 typed wrongly",
        arithmetic.change_constant(("mul",), lambda c: abs(c - 0.044715) < 1e-6, lambda c: 0.04715),
    ),
)

ACTIVATION_FAULTS = (
    Fault("relu left out", "an activation forgotten", arithmetic.replace_relu(lambda x: x)),
    Fault("tanh for relu", "the other library's default activation", arithmetic.replace_relu(lax.tanh)),
    Fault(
        "leaky relu for relu",
        "another member of the family",
        arithmetic.replace_relu(lambda x: lax.max(x, x * lax.full_like(x, 0.01))),
    ),
    Fault("abs for relu", "a sign dropped where a value should be", arithmetic.replace_relu(lax.abs)),
    Fault("logistic for tanh", "gates and candidates confused", arithmetic.replace_operation(("tanh",), lax.logistic)),
    Fault("tanh for logistic", "gates and candidates confused", arithmetic.replace_operation(("logistic",), lax.tanh)),
    Fault("tanh left out", "an activation forgotten", arithmetic.replace_operation(("tanh", "logistic"), lambda x: x)),
    Fault(
        "exp left out", "scores in place of probabilities", arithmetic.replace_operation(("exp", "exp2"), lambda x: x)
    ),
    Fault(
        "log left out",
        "probabilities in place of their logarithms",
        arithmetic.replace_operation(("log",), lambda x: x),
    ),
)

ARITHMETIC_FAULTS = (
    Fault(
        "first summand left out",
        "a residual or the product of a layer forgotten",
        arithmetic.drop_operation(ADDITIONS, 1),
    ),
    Fault("second summand left out", "a bias or residual forgotten", arithmetic.drop_operation(ADDITIONS, 0)),
    Fault("minus for plus", "a sign wrong", arithmetic.replace_operation(ADDITIONS, lax.sub)),
    Fault("plus for minus", "a sign wrong", arithmetic.replace_operation(("sub",), lax.add)),
    Fault(
        "difference swapped",
        "mean - x for x - mean",
        arithmetic.replace_operation(("sub",), lambda a, b: lax.sub(b, a)),
    ),
    Fault("first factor left out", "a scale or mask forgotten", arithmetic.drop_operation(("mul",), 1)),
    Fault("second factor left out", "a scale or mask forgotten", arithmetic.drop_operation(("mul",), 0)),
    Fault(
        "quotient swapped", "a division upside down", arithmetic.replace_operation(("div",), lambda a, b: lax.div(b, a))
    ),
    Fault(
        "divisor left out", "a sum for a mean, no normalisation", arithmetic.replace_operation(("div",), lambda a, _: a)
    ),
    Fault("abs for square", "another norm", arithmetic.replace_square(lax.abs)),
    Fault("square left out", "another norm", arithmetic.replace_square(lambda x: x)),
    Fault(
        "rsqrt for sqrt",
        "times for divided by, and back",
        arithmetic.replace_operation(("sqrt",), lambda x: lax.rsqrt(x)),
    ),
    Fault("sqrt for rsqrt", "divided by for times", arithmetic.replace_operation(("rsqrt",), lambda x: lax.sqrt(x))),
    Fault(
        "root left out",
        "the variance for the standard deviation",
        arithmetic.replace_operation(("sqrt", "rsqrt"), lambda x: x),
    ),
    Fault("min for max", "a clamp from the wrong side", arithmetic.replace_operation(("max",), lax.min)),
    Fault("negation left out", "a sign forgotten", arithmetic.replace_operation(("neg",), lambda x: x)),
)

SHAPE_FAULTS = (
    Fault(
        "kernel transposed",
        "(out, in) for (in, out) where both are equal",
        shapes.change_contraction(lambda x, axis, rank: lax.transpose(x, tuple(range(rank))[::-1])),
    ),
    Fault("other axis summed", "another axis of the same size", shapes.change_summed_axis),
    Fault(
        "features reversed",
        "rows of a kernel in reverse order",
        shapes.change_contraction(lambda x, axis, rank: lax.rev(x, (axis,))),
    ),
    Fault(
        "halves of rows swapped",
        "[h, x] for [x, h] in a recurrent kernel",
        shapes.change_contraction(lambda x, axis, rank: shapes.roll_parts(x, axis, 2)),
    ),
    Fault(
        "gates in other order",
        "i, g, f, o for i, f, g, o in the columns of a kernel",
        shapes.change_contraction(
            lambda x, axis, rank: shapes.roll_parts(x, rank - 1 - axis, 4) if rank == 2 else x[None]
        ),
    ),
    Fault("max for sum", "another pooling", shapes.replace_reduction(("reduce_sum",), reduce_by("max"))),
    Fault("min for max of many", "another pooling", shapes.replace_reduction(("reduce_max",), reduce_by("min"))),
    Fault(
        "last left out of a sum",
        "the last batch or position dropped",
        shapes.change_operand(("reduce_sum",), 0, lambda x: lax.concatenate([x[:-1], jnp.zeros_like(x[-1:])], 0)),
    ),
    Fault("parts in other order", "concat([x, h]) for concat([h, x])", shapes.reverse_operands(("concatenate",))),
    Fault("slice off by one", "a window that begins one late", shapes.shift_slice),
    Fault("positions from one", "positions counted from one", shapes.shift_iota),
    Fault(
        "index off by one",
        "labels or tokens counted from one",
        shapes.change_operand(("gather", "scatter-add", "dynamic_slice"), 1, lambda i: i + lax.full_like(i, 1)),
    ),
    Fault("greater for less", "a mask or threshold the wrong way round", arithmetic.flip_comparison),
    Fault("choice swapped", "where(mask, 0, x) for where(mask, x, 0)", arithmetic.swap_select_cases),
)

LOOP_FAULTS = (
    Fault("loop reversed", "a sequence or a stack of layers run backwards", loops.reverse_scan),
    Fault(
        "stale carry", "a loop body that returns the carry it was given", loops.change_carries(loops.keep_stale_carry)
    ),
    Fault("carries swapped", "(h, c) for (c, h)", loops.change_carries(loops.swap_carries)),
    Fault(
        "first slice for all",
        "one layer's weights for every layer",
        loops.change_scan_input("slices", shapes.repeat_first_row),
    ),
    Fault(
        "slices reversed",
        "the layers' weights stacked in reverse order",
        loops.change_scan_input("slices", lambda x: lax.rev(x, (0,))),
    ),
    Fault("loop starts at ones", "an initial state of ones for zeros", loops.change_scan_input("start", jnp.ones_like)),
    Fault("mask inverted", "keeps what should be dropped", loops.replace_mask(lax.bitwise_not)),
    Fault("mask all true", "dropout left in eval mode", loops.replace_mask(jnp.ones_like)),
    Fault("rate for keep rate", "Dropout(0.9) for keep_prob=0.9", loops.complement_mask_rate),
    Fault(
        "keep scaling left out",
        "dropout without 1 / keep_prob",
        loops.only_programs_that_draw(arithmetic.drop_constant(("div",), is_fraction)),
    ),
    Fault(
        "one draw for two",
        "two layers share a key",
        program=leaves.swap_inputs(leaves.is_draw, both=False),
    ),
    Fault(
        "one draw for all rows",
        "every layer or example has the same mask",
        program=leaves.change_input(leaves.is_draw, shapes.repeat_first_row),
    ),
)

LEAF_FAULTS = (
    Fault(
        "leaves swapped",
        "two leaves of one shape in each other's place",
        program=leaves.swap_inputs(leaves.is_model_leaf),
    ),
    Fault("leaf at zero", "a leaf never loaded", program=leaves.change_input(leaves.is_model_leaf, jnp.zeros_like)),
    Fault("leaf at one", "a leaf never loaded", program=leaves.change_input(leaves.is_model_leaf, jnp.ones_like)),
    Fault(
        "bias left out",
        "use_bias=False",
        program=leaves.change_input(lambda name: name.leaf.endswith(("/bias", "/b", "/offset")), jnp.zeros_like),
    ),
    Fault(
        "scale left out",
        "use_scale=False",
        program=leaves.change_input(lambda name: name.leaf.endswith("/scale"), jnp.ones_like),
    ),
    Fault(
        "channels reversed",
        "BGR for RGB",
        program=leaves.change_input(leaves.is_batch, lambda x: lax.rev(x, (x.ndim - 1,))),
    ),
    Fault(
        "stale state",
        "the new state dropped, as jax.jit(model) does",
        program=leaves.change_update(leaves.is_state_output, lambda old, new: old),
    ),
    Fault(
        "state updated twice",
        "a call at init, or a second forward pass, counted too",
        program=leaves.change_update(leaves.is_state_output, lambda old, new: new + (new - old)),
    ),
    Fault("states swapped", "mean for variance", program=leaves.swap_outputs(leaves.is_state_output)),
    Fault(
        "state reset",
        "the state is reset in every call",
        program=leaves.change_output(leaves.is_state_output, jnp.zeros_like),
    ),
    Fault(
        "gradient cut",
        "stop_gradient, or a leaf that is not trained",
        program=leaves.change_output(leaves.is_gradient, jnp.zeros_like),
    ),
    Fault(
        "gradient x 2",
        "a leaf counted twice",
        program=leaves.change_output(leaves.is_gradient, lambda g: leaves.scale_array(g, 2)),
    ),
    Fault(
        "gradients swapped",
        "two gradients of one shape in each other's place",
        program=leaves.swap_outputs(leaves.is_gradient),
    ),
    Fault(
        "learning rate x 2",
        "another learning rate",
        program=leaves.only_train_step(
            leaves.change_update(leaves.is_leaf_output, lambda old, new: new + (new - old), together=True, whole=False)
        ),
    ),
    Fault(
        "update left out",
        "one leaf is frozen, or its update is lost",
        program=leaves.only_train_step(leaves.change_update(leaves.is_leaf_output, lambda old, new: old)),
    ),
    Fault(
        "update reversed",
        "ascent for descent",
        program=leaves.only_train_step(leaves.change_update(leaves.is_leaf_output, lambda old, new: old - (new - old))),
    ),
    Fault(
        "weight decay",
        "decay on a leaf that has none",
        program=leaves.only_train_step(
            leaves.change_update(leaves.is_leaf_output, lambda old, new: new - old * 1e-4, whole=False)
        ),
    ),
    Fault(
        "stale slot",
        "the optimizer's state is not handed on",
        program=leaves.only_train_step(leaves.change_update(leaves.is_optimizer_output, lambda old, new: old)),
    ),
    Fault(
        "slots swapped",
        "first moment for second",
        program=leaves.only_train_step(leaves.swap_outputs(leaves.is_optimizer_output)),
    ),
)

FAULTS: tuple[Fault, ...] = (
    *CONSTANT_FAULTS,
    *ACTIVATION_FAULTS,
    *ARITHMETIC_FAULTS,
    *SHAPE_FAULTS,
    *LOOP_FAULTS,
    *LEAF_FAULTS,
)
"""Every kind of fault, in the order of the sensitivity matrix."""
