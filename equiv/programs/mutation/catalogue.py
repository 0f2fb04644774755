"""The catalogue of faults: each stands for a bug that somebody has written when porting a model."""

from dataclasses import dataclass

from jax import lax
from jax import numpy as jnp

from equiv.programs.mutation import arithmetic, leaves, shapes
from equiv.programs.mutation import loops as turns
from equiv.programs.mutation.arithmetic import ADDS
from equiv.programs.mutation.edits import OnEquation
from equiv.programs.mutation.leaves import OnProgram


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name.
        stands_for: the bug it stands for.
        equation: what it does to an equation.
        program: what it does to a program's inputs or outputs.
    """

    kind: str
    stands_for: str
    equation: OnEquation | None = None
    program: OnProgram | None = None


FACTORS = ("mul", "div", "add", "sub", "pow", "max", "min")


def small(number: float) -> bool:
    """An eps: what is added lest something be zero."""
    return 0 < abs(number) <= 1e-2


def share(number: float) -> bool:
    """A rate, a momentum, a decay."""
    return 0 < number < 1


def count(number: float) -> bool:
    """A number of elements."""
    return number >= 2 and number.is_integer()


def _n_less_one(number: float) -> float:
    """A count less one, and what 1 / n is then."""
    return number - 1 if number >= 1 else 1 / (round(1 / number) - 1)


def _of_mean(number: float) -> bool:
    return count(number) or (0 < number <= 0.5 and abs(1 / number - round(1 / number)) < 1e-9)


CONSTANTS = (
    Fault("eps x 10", "eps 1e-5 where the other library has 1e-6", arithmetic.constants(ADDS, small, lambda c: c * 10)),
    Fault("eps / 10", "eps 1e-6 where the other library has 1e-5", arithmetic.constants(ADDS, small, lambda c: c / 10)),
    Fault("eps left out", "the eps under a root or in a quotient forgotten", arithmetic.constant_dropped(ADDS, small)),
    Fault("momentum for decay", "momentum taken for 1 - momentum", arithmetic.averaged(lambda c: 1 - c)),
    Fault("other momentum", "a running average with the other library's default", arithmetic.averaged(lambda c: c**2)),
    Fault("c for 1 - c", "a rate for its complement", arithmetic.constants(("mul", "div"), share, lambda c: 1 - c)),
    Fault("constant x 2", "a scale applied twice, a factor 2 forgotten",
          arithmetic.constants(FACTORS, bool, lambda c: c * 2)),
    Fault("constant x 1.01", "a constant typed wrongly", arithmetic.constants(FACTORS, bool, lambda c: c * 1.01)),
    Fault("constant's sign", "a sign forgotten", arithmetic.constants(FACTORS, bool, lambda c: -c)),
    Fault("n - 1 for n", "the unbiased variance for the biased one",
          arithmetic.constants(("div", "mul"), _of_mean, _n_less_one)),
    Fault("power + 1", "bias correction or power one step late", arithmetic.powers),
    Fault("gelu constant", "0.044715 typed wrongly",
          arithmetic.constants(("mul",), lambda c: abs(c - 0.044715) < 1e-6, lambda c: 0.04715)),
)  # fmt: skip


ACTIVATIONS = (
    Fault("relu left out", "an activation forgotten", arithmetic.relu(lambda x: x)),
    Fault("tanh for relu", "the other library's default activation", arithmetic.relu(lax.tanh)),
    Fault("leaky relu for relu", "another member of the family",
          arithmetic.relu(lambda x: lax.max(x, x * lax.full_like(x, 0.01)))),
    Fault("abs for relu", "a sign dropped where a value should be", arithmetic.relu(lax.abs)),
    Fault("logistic for tanh", "gates and candidates confused", arithmetic.replaced(("tanh",), lax.logistic)),
    Fault("tanh for logistic", "gates and candidates confused", arithmetic.replaced(("logistic",), lax.tanh)),
    Fault("tanh left out", "an activation forgotten", arithmetic.replaced(("tanh", "logistic"), lambda x: x)),
    Fault("exp left out", "scores in place of probabilities", arithmetic.replaced(("exp", "exp2"), lambda x: x)),
    Fault("log left out", "probabilities in place of their logarithms", arithmetic.replaced(("log",), lambda x: x)),
)  # fmt: skip


ARITHMETIC = (
    Fault("first summand left out", "a residual or the product of a layer forgotten", arithmetic.dropped(ADDS, 1)),
    Fault("second summand left out", "a bias or residual forgotten", arithmetic.dropped(ADDS, 0)),
    Fault("minus for plus", "a sign wrong", arithmetic.replaced(ADDS, lax.sub)),
    Fault("plus for minus", "a sign wrong", arithmetic.replaced(("sub",), lax.add)),
    Fault("difference swapped", "mean - x for x - mean", arithmetic.replaced(("sub",), lambda a, b: lax.sub(b, a))),
    Fault("first factor left out", "a scale or mask forgotten", arithmetic.dropped(("mul",), 1)),
    Fault("second factor left out", "a scale or mask forgotten", arithmetic.dropped(("mul",), 0)),
    Fault("quotient swapped", "a division upside down", arithmetic.replaced(("div",), lambda a, b: lax.div(b, a))),
    Fault("divisor left out", "a sum for a mean, no normalisation",
          arithmetic.replaced(("div",), lambda a, _: a)),
    Fault("abs for square", "another norm", arithmetic.squared(lax.abs)),
    Fault("square left out", "another norm", arithmetic.squared(lambda x: x)),
    Fault("rsqrt for sqrt", "times for divided by, and back",
          arithmetic.replaced(("sqrt",), lambda x: lax.rsqrt(x))),
    Fault("sqrt for rsqrt", "divided by for times", arithmetic.replaced(("rsqrt",), lambda x: lax.sqrt(x))),
    Fault("root left out", "the variance for the standard deviation",
          arithmetic.replaced(("sqrt", "rsqrt"), lambda x: x)),
    Fault("min for max", "a clamp from the wrong side", arithmetic.replaced(("max",), lax.min)),
    Fault("negation left out", "a sign forgotten", arithmetic.replaced(("neg",), lambda x: x)),
)  # fmt: skip


SHAPES = (
    Fault("kernel transposed", "(out, in) for (in, out) where both are equal",
          shapes.contraction(lambda x, axis, rank: lax.transpose(x, tuple(range(rank))[::-1]))),
    Fault("other axis summed", "another axis of the same size", shapes.other_axis_summed),
    Fault("features reversed", "rows of a kernel in reverse order",
          shapes.contraction(lambda x, axis, rank: lax.rev(x, (axis,)))),
    Fault("halves of rows swapped", "[h, x] for [x, h] in a recurrent kernel",
          shapes.contraction(lambda x, axis, rank: shapes.rolled(x, axis, 2))),
    Fault("gates in other order", "i, g, f, o for i, f, g, o in the columns of a kernel",
          shapes.contraction(lambda x, axis, rank: shapes.rolled(x, rank - 1 - axis, 4) if rank == 2 else x[None])),
    Fault("max for sum", "another pooling", shapes.reduced(("reduce_sum",), lax.reduce_max)),
    Fault("min for max of many", "another pooling", shapes.reduced(("reduce_max",), lax.reduce_min)),
    Fault("last left out of a sum", "the last batch or position dropped", shapes.operand(
        ("reduce_sum",), 0, lambda x: lax.concatenate([x[:-1], jnp.zeros_like(x[-1:])], 0))),
    Fault("parts in other order", "concat([x, h]) for concat([h, x])", shapes.order(("concatenate",))),
    Fault("slice off by one", "a window that begins one late", shapes.sliced_late),
    Fault("positions from one", "positions counted from one", shapes.counted),
    Fault("index off by one", "labels or tokens counted from one",
          shapes.operand(("gather", "scatter-add", "dynamic_slice"), 1, lambda i: i + lax.full_like(i, 1))),
    Fault("greater for less", "a mask or threshold the wrong way round", arithmetic.compared),
    Fault("choice swapped", "where(mask, 0, x) for where(mask, x, 0)", arithmetic.selected),
)  # fmt: skip


TURNS = (
    Fault("loop reversed", "a sequence or a stack of layers run backwards", turns.reversed_scan),
    Fault("stale carry", "a turn that hands on the state it was given", turns.carries(turns.stale)),
    Fault("carries swapped", "(h, c) for (c, h)", turns.carries(turns.crossed)),
    Fault("first slice for all", "one layer's weights for every layer", turns.scanned("slices", shapes.first_for_all)),
    Fault("slices reversed", "the layers' weights stacked in reverse order",
          turns.scanned("slices", lambda x: lax.rev(x, (0,)))),
    Fault("loop starts at ones", "an initial state of ones for zeros", turns.scanned("start", jnp.ones_like)),
    Fault("mask inverted", "keeps what should be dropped", turns.masks(lax.bitwise_not)),
    Fault("mask all true", "dropout left in eval mode", turns.masks(jnp.ones_like)),
    Fault("rate for keep rate", "Dropout(0.9) for keep_prob=0.9", turns.mask_rate),
    Fault("keep scaling left out", "dropout without 1 / keep_prob",
          turns.only_drawing(arithmetic.constant_dropped(("div",), share))),
    Fault("one draw for two", "two layers share a key", program=leaves.inputs_crossed(
        lambda name: name.startswith("draw/"), both=False)),
    Fault("one draw for all rows", "every layer or example has the same mask",
          program=leaves.inputs(lambda name: name.startswith("draw/"), shapes.first_for_all)),
)  # fmt: skip


LEAVES = (
    Fault("leaves swapped", "two leaves of one shape in each other's place",
          program=leaves.inputs_crossed(leaves.is_leaf)),
    Fault("leaf at zero", "a leaf never loaded", program=leaves.inputs(leaves.is_leaf, jnp.zeros_like)),
    Fault("leaf at one", "a leaf never loaded", program=leaves.inputs(leaves.is_leaf, jnp.ones_like)),
    Fault("bias left out", "use_bias=False", program=leaves.inputs(
        lambda name: name.endswith(("/bias", "/b", "/offset")), jnp.zeros_like)),
    Fault("scale left out", "use_scale=False", program=leaves.inputs(
        lambda name: name.endswith("/scale"), jnp.ones_like)),
    Fault("channels reversed", "BGR for RGB", program=leaves.inputs(
        lambda name: name.startswith("batch/"), lambda x: lax.rev(x, (x.ndim - 1,)))),
    Fault("stale state", "the new state dropped, as jax.jit(model) does",
          program=leaves.updates(leaves.state, lambda old, new: old)),
    Fault("state updated twice", "a call at init, or a second forward pass, counted too",
          program=leaves.updates(leaves.state, lambda old, new: new + (new - old))),
    Fault("states swapped", "mean for variance", program=leaves.outputs_crossed(leaves.state)),
    Fault("state reset", "the state begins anew with every call", program=leaves.outputs(leaves.state, jnp.zeros_like)),
    Fault("gradient cut", "stop_gradient, or a leaf that is not trained", program=leaves.outputs(
        lambda name: name.startswith("gradient "), jnp.zeros_like)),
    Fault("gradient x 2", "a leaf counted twice", program=leaves.outputs(
        lambda name: name.startswith("gradient "), lambda g: leaves.scaled(g, 2))),
    Fault("gradients swapped", "two gradients of one shape in each other's place",
          program=leaves.outputs_crossed(lambda name: name.startswith("gradient "))),
    Fault("learning rate x 2", "another learning rate", program=leaves.in_step(leaves.updates(
        leaves.of_training("leaf"), lambda old, new: new + (new - old), together=True, whole=False))),
    Fault("update left out", "one leaf is frozen, or its update is lost", program=leaves.in_step(leaves.updates(
        leaves.of_training("leaf"), lambda old, new: old))),
    Fault("update reversed", "ascent for descent", program=leaves.in_step(leaves.updates(
        leaves.of_training("leaf"), lambda old, new: old - (new - old)))),
    Fault("weight decay", "decay on a leaf that has none", program=leaves.in_step(leaves.updates(
        leaves.of_training("leaf"), lambda old, new: new - old * 1e-4, whole=False))),
    Fault("stale slot", "the optimizer's state is not handed on", program=leaves.in_step(leaves.updates(
        leaves.of_training("slot"), lambda old, new: old))),
    Fault("slots swapped", "first moment for second", program=leaves.in_step(
        leaves.outputs_crossed(leaves.of_training("slot")))),
)  # fmt: skip


FAULTS: tuple[Fault, ...] = (*CONSTANTS, *ACTIVATIONS, *ARITHMETIC, *SHAPES, *TURNS, *LEAVES)
"""Every kind, in the order of the matrix."""
