"""Walk a jaxpr: enter calls and loops, and record every use of a leaf."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import numpy as np
from jax.extend import core

from equiv.infer.dataflow import loops
from equiv.infer.dataflow.blocks import (
    BlockedValue,
    Cuts,
    WalkedEquation,
    WalkState,
    make_cells,
    part_spans,
    single_part,
    value_parts,
)
from equiv.infer.dataflow.leaf_uses import CONSTANT_PART, LeafOperand, LeafUses, ValuePart
from equiv.infer.dataflow.primitives import apply_primitive
from equiv.infer.dataflow.strided_views import Shape, whole_leaf_view
from equiv.programs.jaxpr import CALL_PRIMITIVES, open_jaxpr
from equiv.programs.program import Program


@dataclass(frozen=True)
class LeafBlock:
    """A leaf, or a part of a packed leaf.

    Attributes:
        leaf: its index among the program's inputs.
        bounds: (start, stop) on every axis.
    """

    leaf: int
    bounds: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(end - start for start, end in self.bounds)


@dataclass(frozen=True)
class Dataflow:
    """The uses of a program's leaves.

    Attributes:
        blocks: the leaves or their parts; their indices are nodes.
        inputs: batch entries; the nodes after the blocks.
        uses: every use.
        output_uses: for each output the uses directly before it, as a bit set.
        wanted_cuts: leaf and axis to the indices where the program cuts it.
        loop_lengths: leaf to the length of the loop that slices it on its first axis.
        equations: see `WalkState.equations`.
    """

    blocks: tuple[LeafBlock, ...]
    inputs: tuple[str, ...]
    uses: LeafUses
    output_uses: tuple[int, ...]
    wanted_cuts: Mapping[tuple[int, int], Cuts]
    loop_lengths: Mapping[int, int]
    equations: tuple[WalkedEquation, ...]


def walk_program(program: Program, leaves: frozenset[int], cuts: Mapping[int, tuple[Cuts, ...]]) -> Dataflow:
    """Walk a program.

    Args:
        program: a traced port, without dead equations.
        leaves: indices of its inputs that are leaves.
        cuts: leaf to the indices where each of its axes is cut; the other leaves stay whole.
    """
    state = WalkState()
    jaxpr, consts = open_jaxpr(program.jaxpr)
    blocks: list[LeafBlock] = []
    values: dict[int, BlockedValue] = {}
    # All blocks first: batch entries are the nodes after them.
    for place in sorted(leaves):
        values[place] = _leaf_value(place, tuple(jaxpr.invars[place].aval.shape), cuts.get(place), blocks)
    entries = [name.path for name in program.inputs if name.kind == "batch"]
    for place, (name, var) in enumerate(zip(program.inputs, jaxpr.invars, strict=True)):
        if name.kind == "batch":
            state.uses.path = ("input", name.path)
            number = entries.index(name.path)
            use = state.uses.record(len(blocks) + number, "input", None)
            entry, shape = -1 - number, tuple(var.aval.shape)
            origins = tuple(frozenset([(entry, axis, Fraction(1), Fraction(0))]) for axis in range(len(shape)))
            values[place] = single_part(shape, ValuePart(use, is_activation=True), origins)
        elif place not in leaves:
            values[place] = single_part(tuple(var.aval.shape), CONSTANT_PART)
    state.uses.path = ()
    outs = _walk_jaxpr(state, jaxpr, consts, [values[place] for place in range(len(jaxpr.invars))], ())
    state.uses.path = ("output",)
    ends = tuple(_output_uses(state, number, value) for number, value in enumerate(outs))
    wanted = {key: tuple(sorted(places)) for key, places in state.wanted_cuts.items()}
    return Dataflow(tuple(blocks), tuple(entries), state.uses, ends, wanted, state.loop_lengths, tuple(state.equations))


def _leaf_value(leaf: int, shape: Shape, cuts: tuple[Cuts, ...] | None, blocks: list[LeafBlock]) -> BlockedValue:
    places = cuts or ((),) * len(shape)

    def make(index: tuple[int, ...]) -> ValuePart:
        bounds = tuple(part_spans(at, size)[part] for at, size, part in zip(places, shape, index, strict=True))
        blocks.append(LeafBlock(leaf, bounds))
        return ValuePart(leaves=(LeafOperand(len(blocks) - 1, whole_leaf_view(shape, bounds)),))

    origins = tuple(frozenset([(leaf, axis, Fraction(1), Fraction(0))]) for axis in range(len(shape)))
    return BlockedValue(shape, make_cells(shape, places, make), places, origins)


def _output_uses(state: WalkState, number: int, value: BlockedValue) -> int:
    found = 0
    for index, part in enumerate(value_parts(value)):
        taken = state.uses.record_leaves(part.leaves, "output", (number, index))
        found |= state.uses.close_group(part) | taken
    return found


def _walk_jaxpr(
    state: WalkState, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[BlockedValue], path: Any
) -> list[BlockedValue]:
    values: dict[Any, BlockedValue] = {
        var: _constant_value(np.shape(c)) for var, c in zip(jaxpr.constvars, consts, strict=True)
    }
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(item: Any) -> BlockedValue:
        return _literal_value(item) if isinstance(item, core.Literal) else values[item]

    for place, eqn in enumerate(jaxpr.eqns):
        here = (path, place)
        state.uses.path = here
        values.update(
            zip(eqn.outvars, _walk_equation(state, eqn, [read(item) for item in eqn.invars], here), strict=True)
        )
    return [read(item) for item in jaxpr.outvars]


def _constant_value(shape: Shape) -> BlockedValue:
    return single_part(tuple(shape), CONSTANT_PART)


def _literal_value(item: Any) -> BlockedValue:
    shape = tuple(item.aval.shape)
    # Only a number that is the same for all elements can be a shift of a leaf.
    if shape or not np.issubdtype(item.aval.dtype, np.number):
        return _constant_value(shape)
    return single_part((), ValuePart(number=float(item.val)))


def _walk_equation(state: WalkState, eqn: Any, ins: list[BlockedValue], path: Any) -> list[BlockedValue]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALL_PRIMITIVES:
        body, consts = open_jaxpr(params[CALL_PRIMITIVES[name]])
        return _walk_jaxpr(state, body, consts, ins[len(ins) - len(body.invars) :], path)
    if name in loops.DATAFLOW_LOOP_RULES:
        return loops.DATAFLOW_LOOP_RULES[name](state, eqn, ins, partial(_walk_jaxpr, state), path)
    outs = apply_primitive(state, eqn, ins)
    # Roles and decays read every equation once; a second walk of a loop's body would count it twice.
    if not state.uses.second_pass:
        state.equations.append(WalkedEquation(name, ins, outs, path))
    return outs
