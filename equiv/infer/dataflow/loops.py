"""Rules for scan, while and cond: a loop's carry precedes its uses in the next iteration."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from equiv.infer.dataflow.blocks import (
    NOWHERE,
    BlockedValue,
    WalkState,
    concatenate_values,
    map_views,
    merge_cuts,
    single_part,
    slice_axis,
    value_parts,
)
from equiv.infer.dataflow.leaf_uses import combine_unknown
from equiv.infer.dataflow.primitives import unknown_results
from equiv.infer.dataflow.strided_views import flip_view, loop_body_view
from equiv.programs.jaxpr import ScanLoop, WhileLoop, open_jaxpr

WalkJaxpr = Callable[..., list[BlockedValue]]
"""`(jaxpr, inputs, path)` to outputs."""


def cond_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], walk: WalkJaxpr, path: Any) -> list[BlockedValue]:
    """`cond`: the result depends on all branches."""
    ways = [walk(branch, ins[1:], (*path, number)) for number, branch in enumerate(eqn.params["branches"])]
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    return [
        unknown_results(state, [ins[0], *values], [shape])[0]
        for shape, values in zip(shapes, zip(*ways, strict=True), strict=True)
    ]


def scan_rule(
    state: WalkState, loop: ScanLoop, ins: list[BlockedValue], walk: WalkJaxpr, path: Any
) -> list[BlockedValue]:
    """`scan`: the body is walked once; unrolled where the other port stores the stacked leaves separately."""
    length = loop.length
    fixed, start, stacked = loop.split(ins)
    # Cut between all items: `find_cuts` saw that the other port has a leaf for each iteration.
    if any(len(one.cuts[0]) == length - 1 > 0 and not one.period(0) and _has_leaves(one) for one in stacked):
        return _unroll_scan(state, loop, ins, walk, path)
    slices = []
    for value in stacked:
        # Only if an iteration sees one index of the leaf's own first axis, which is what an item of a stack is.
        state.loop_lengths |= {
            leaf: length for leaf, axis, unit, _, period in value.origins[0] if (axis, unit, period) == (0, 1, 0)
        }
        value = merge_cuts(state, value, [0])
        cells = map_views(value.cells, lambda view: loop_body_view(flip_view(view, [0]) if loop.reverse else view))[0]
        slices.append(BlockedValue(value.shape[1:], cells, value.cuts[1:], value.origins[1:], value.periods[1:]))

    def once(carry: list[BlockedValue]) -> list[BlockedValue]:
        return walk(loop.body, [*fixed, *carry, *slices], path)

    body, _ = open_jaxpr(loop.body)
    _, given, _ = loop.split(list(body.invars))
    # Some ports hand their parameters through the carry: what the body returns unchanged is no carry but a constant.
    still = [out is incoming for out, incoming in zip(body.outvars, given, strict=False)]
    carry, outs = _walk_body_twice(state, start, still, once)
    return [*carry, *(_stacked_output(value, length) for value in outs[loop.carries :])]


def _has_leaves(value: BlockedValue) -> bool:
    return any(part.leaves for part in value_parts(value))


def _walk_body_twice(
    state: WalkState, start: list[BlockedValue], still: list[bool], once: Any
) -> tuple[list[BlockedValue], list[BlockedValue]]:
    """The final carry of a loop and the outputs of its body. A carry that the body does not change is kept."""
    carry = [value if rest else _carried_value(state, [value]) for value, rest in zip(start, still, strict=True)]
    outs = once(carry)
    pairs = zip(start, still, outs, strict=False)
    carry = [value if rest else _carried_value(state, [value, out]) for value, rest, out in pairs]
    # The first walk knows the initial carry only. The second one is fed with its result, so that what it adds
    # is known to come from the last iteration. The flag is restored, as this may be a loop within a loop.
    again, state.uses.second_pass = state.uses.second_pass, True
    outs = once(carry)
    state.uses.second_pass = again
    return [value if rest else out for value, rest, out in zip(start, still, outs, strict=False)], outs


def _carried_value(state: WalkState, values: list[BlockedValue]) -> BlockedValue:
    """A carried value: an activation even where it starts from zeros."""
    part = combine_unknown(state.uses, [part for value in values for part in value_parts(value)])
    return single_part(
        values[0].shape, replace(part, is_activation=True, leaves=()) if not part.is_activation else part
    )


def _stacked_output(value: BlockedValue, length: int) -> BlockedValue:
    cells = map_views(value.cells[None], lambda view: None)
    periods = (0, *value.periods) if value.periods else ()
    return BlockedValue((length, *value.shape), cells, ((), *value.cuts), (NOWHERE, *value.origins), periods)


def _unroll_scan(
    state: WalkState, loop: ScanLoop, ins: list[BlockedValue], walk: WalkJaxpr, path: Any
) -> list[BlockedValue]:
    fixed, carry, stacked = loop.split(ins)
    outs = []
    for number in loop.iterations:
        slices = [_slice_iteration(state, value, number) for value in stacked]
        results = walk(loop.body, [*fixed, *carry, *slices], (*path, number))
        carry = results[: loop.carries]
        outs.append(results[loop.carries :])
    if loop.reverse:
        outs.reverse()
    return [
        *carry,
        *(
            concatenate_values(state, [_stacked_output(value, 1) for value in values], 0)
            for values in zip(*outs, strict=True)
        ),
    ]


def _slice_iteration(state: WalkState, value: BlockedValue, number: int) -> BlockedValue:
    value = slice_axis(state, value, 0, number, number + 1)
    cells = map_views(value.cells, lambda view: replace(view, axes=view.axes[1:]))[0]
    return BlockedValue(value.shape[1:], cells, value.cuts[1:], value.origins[1:], value.periods[1:])


def while_rule(
    state: WalkState, loop: WhileLoop, ins: list[BlockedValue], walk: WalkJaxpr, path: Any
) -> list[BlockedValue]:
    """`while_loop`: the body is walked, the condition is not."""
    # The condition decides how often the body runs and enters no
    # value, so that a leaf that only it reads counts as dead.
    _, fixed, start = loop.split(ins)

    def once(carry: list[BlockedValue]) -> list[BlockedValue]:
        return walk(loop.body, [*fixed, *carry], path)

    body, _ = open_jaxpr(loop.body)
    still = [out is given for out, given in zip(body.outvars, body.invars[len(fixed) :], strict=True)]
    return _walk_body_twice(state, start, still, once)[0]
