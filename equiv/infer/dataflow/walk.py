"""Walk a jaxpr: enter calls and loops, and record every use of a leaf."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from equiv.infer.dataflow import loops
from equiv.infer.dataflow.blocks import (
    AxisCuts,
    BlockedValue,
    Cuts,
    GroupCuts,
    WalkedEquation,
    WalkState,
    make_cells,
    part_spans,
    single_part,
    value_parts,
)
from equiv.infer.dataflow.leaf_uses import CONSTANT_PART, LeafOperand, LeafUses, ValuePart
from equiv.infer.dataflow.primitives import apply_primitive
from equiv.infer.dataflow.strided_views import Shape, merge_digits, whole_leaf_view
from equiv.programs.jaxpr import Interpreter, read_scan, read_while
from equiv.programs.program import Program


@dataclass(frozen=True)
class LeafBlock:
    """A leaf, or a part of a packed leaf.

    Attributes:
        leaf: its index among the program's inputs.
        shape: of the whole leaf; an axis whose cuts recur is two: how often they do, and the period.
        bounds: (start, stop) on every axis of that shape.
    """

    leaf: int
    shape: Shape
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
        recurring_cuts: leaf and axis to cuts that recur, see `WalkState.recurring_cuts`.
        loop_lengths: leaf to the length of the loop or `vmap` that slices it on its first axis.
        group_cuts: leaf and axis to the groups of a convolution along it.
        equations: see `WalkState.equations`.
    """

    blocks: tuple[LeafBlock, ...]
    inputs: tuple[str, ...]
    uses: LeafUses
    output_uses: tuple[int, ...]
    wanted_cuts: Mapping[tuple[int, int], Cuts]
    recurring_cuts: Mapping[tuple[int, int], Mapping[tuple[int, int], Cuts]]
    loop_lengths: Mapping[int, int]
    group_cuts: Mapping[tuple[int, int], GroupCuts]
    equations: tuple[WalkedEquation, ...]


def walk_program(program: Program, leaves: frozenset[int], cuts: Mapping[int, tuple[AxisCuts, ...]]) -> Dataflow:
    """Walk a program.

    Args:
        program: a traced port, without dead equations.
        leaves: indices of its inputs that are leaves.
        cuts: leaf to the indices where each of its axes is cut; the other leaves stay whole.
    """
    state = WalkState()
    avals = program.jaxpr.in_avals
    blocks: list[LeafBlock] = []
    values: dict[int, BlockedValue] = {}
    # All blocks first: batch entries are the nodes after them.
    for place in sorted(leaves):
        values[place] = _leaf_value(place, tuple(avals[place].shape), cuts.get(place), blocks)
    entries = [name.path for name in program.inputs if name.kind == "batch"]
    for place, (name, aval) in enumerate(zip(program.inputs, avals, strict=True)):
        if name.kind == "batch":
            state.uses.path = ("input", name.path)
            number = entries.index(name.path)
            use = state.uses.record(len(blocks) + number, "input", None)
            entry, shape = -1 - number, tuple(aval.shape)
            origins = tuple(frozenset([(entry, axis, Fraction(1), Fraction(0), 0)]) for axis in range(len(shape)))
            values[place] = single_part(shape, ValuePart(use, is_activation=True), origins)
        elif place not in leaves:
            values[place] = single_part(tuple(aval.shape), CONSTANT_PART)
    state.uses.path = ()
    outs = _DataflowWalk(state).run(program.jaxpr, [values[place] for place in range(len(avals))])
    state.uses.path = ("output",)
    ends = tuple(_output_uses(state, number, value) for number, value in enumerate(outs))
    wanted = {key: tuple(sorted(places)) for key, places in state.wanted_cuts.items()}
    recurring = {
        key: {turn: tuple(sorted(places)) for turn, places in found.items()}
        for key, found in state.recurring_cuts.items()
    }
    return Dataflow(
        tuple(blocks),
        tuple(entries),
        state.uses,
        ends,
        wanted,
        recurring,
        state.loop_lengths,
        state.group_cuts,
        tuple(state.equations),
    )


def _leaf_value(leaf: int, shape: Shape, cuts: tuple[AxisCuts, ...] | None, blocks: list[LeafBlock]) -> BlockedValue:
    cuts = cuts or (AxisCuts(),) * len(shape)
    # An axis whose cuts recur is two axes here: a part is a range of the second one.
    grid = [(size // at.period, at.period) if at.period else (size,) for at, size in zip(cuts, shape, strict=True)]
    flat = tuple(size for sizes in grid for size in sizes)

    def make(index: tuple[int, ...]) -> ValuePart:
        bounds: list[tuple[int, int]] = []
        for at, sizes, part in zip(cuts, grid, index, strict=True):
            bounds += [*((0, size) for size in sizes[:-1]), part_spans(at.places, sizes[-1])[part]]
        blocks.append(LeafBlock(leaf, flat, tuple(bounds)))
        view = whole_leaf_view(flat, bounds)
        axes = iter(view.axes)
        merged = tuple(merge_digits([digit for _ in sizes for digit in next(axes)]) for sizes in grid)
        return ValuePart(leaves=(LeafOperand(len(blocks) - 1, replace(view, axes=merged)),))

    places = tuple(at.places for at in cuts)
    origins = tuple(frozenset([(leaf, axis, Fraction(1), Fraction(0), 0)]) for axis in range(len(shape)))
    return BlockedValue(shape, make_cells(shape, places, make), places, origins, tuple(at.period for at in cuts))


def _output_uses(state: WalkState, number: int, value: BlockedValue) -> int:
    found = 0
    for index, part in enumerate(value_parts(value)):
        taken = state.uses.record_leaves(part.leaves, "output", (number, index))
        found |= state.uses.close_group(part) | taken
    return found


@dataclass
class _DataflowWalk(Interpreter[BlockedValue]):
    """The parts of each value and what they depend on; every use of a leaf is recorded in the state."""

    state: WalkState

    def literal(self, atom: Any) -> BlockedValue:
        shape = tuple(atom.aval.shape)
        # Only a number that is the same for all elements can be a shift of a leaf.
        if shape or not jnp.issubdtype(atom.aval.dtype, jnp.number) or np.iscomplexobj(atom.val):
            return single_part(shape, CONSTANT_PART)
        return single_part((), ValuePart(number=float(atom.val)))

    def constant(self, array: Any) -> BlockedValue:
        zeros = jnp.issubdtype(array.dtype, jnp.number) and not np.any(array)
        return single_part(tuple(np.shape(array)), ValuePart(number=0.0) if zeros else CONSTANT_PART)

    def step(self, eqn: Any, ins: list[BlockedValue]) -> Sequence[BlockedValue]:
        self.state.uses.path = self.path
        return super().step(eqn, ins)

    def equation(self, eqn: Any, ins: list[BlockedValue]) -> list[BlockedValue]:
        outs = apply_primitive(self.state, eqn, ins)
        # Roles and decays read every equation once; a second walk of a loop's body would count it twice.
        if not self.state.uses.second_pass:
            self.state.equations.append(WalkedEquation(eqn.primitive.name, ins, outs, self.path))
        return outs

    def scan(self, eqn: Any, ins: list[BlockedValue]) -> list[BlockedValue]:
        return loops.scan_rule(self.state, read_scan(eqn), ins, self.run, self.path)

    def while_loop(self, eqn: Any, ins: list[BlockedValue]) -> list[BlockedValue]:
        return loops.while_rule(self.state, read_while(eqn), ins, self.run, self.path)

    def cond(self, eqn: Any, ins: list[BlockedValue]) -> list[BlockedValue]:
        return loops.cond_rule(self.state, eqn, ins, self.run, self.path)
