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
from equiv.programs.jaxpr import open_jaxpr, scan_operand_bounds

WalkJaxpr = Callable[..., list[BlockedValue]]
"""`(jaxpr, constants, inputs, path)` to outputs."""


def cond_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], walk: WalkJaxpr, path: Any) -> list[BlockedValue]:
    """`cond`: the result depends on all branches."""
    ways = [walk(*open_jaxpr(branch), ins[1:], (path, number)) for number, branch in enumerate(eqn.params["branches"])]
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    return [
        unknown_results(state, [ins[0], *values], [shape])[0]
        for shape, values in zip(shapes, zip(*ways, strict=True), strict=True)
    ]


def scan_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], walk: WalkJaxpr, path: Any) -> list[BlockedValue]:
    """`scan`: the body is walked once; unrolled where the other port stores the stacked leaves separately."""
    body, consts = open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = scan_operand_bounds(eqn)
    length, reverse, stacked = eqn.params["length"], eqn.params["reverse"], ins[carried:]
    # Cut between all items: `find_cuts` saw that the other port has a leaf for each iteration.
    if any(len(value.cuts[0]) == length - 1 > 0 and _has_leaves(value) for value in stacked):
        return _unroll_scan(state, eqn, ins, walk, path)
    slices = []
    for value in stacked:
        # Only if an iteration sees one index of the leaf's own first axis, which is what an item of a stack is.
        state.loop_lengths |= {leaf: length for leaf, axis, unit, _ in value.origins[0] if (axis, unit) == (0, 1)}
        value = merge_cuts(state, value, [0])
        cells = map_views(value.cells, lambda view: loop_body_view(flip_view(view, [0]) if reverse else view))[0]
        slices.append(BlockedValue(value.shape[1:], cells, value.cuts[1:], value.origins[1:]))

    def once(carry: list[BlockedValue]) -> list[BlockedValue]:
        return walk(body, consts, [*ins[:fixed], *carry, *slices], path)

    # Some ports hand their parameters through the carry: what the body returns unchanged is no carry but a constant.
    still = [body.outvars[at] is body.invars[fixed + at] for at in range(carried - fixed)]
    carry, outs = _walk_body_twice(state, ins[fixed:carried], still, once)
    return [*carry, *(_stacked_output(value, length) for value in outs[carried - fixed :])]


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
    return BlockedValue((length, *value.shape), cells, ((), *value.cuts), (NOWHERE, *value.origins))


def _unroll_scan(state: WalkState, eqn: Any, ins: list[BlockedValue], walk: WalkJaxpr, path: Any) -> list[BlockedValue]:
    body, consts = open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = scan_operand_bounds(eqn)
    carry, outs = ins[fixed:carried], []
    iterations = range(eqn.params["length"])
    for number in reversed(iterations) if eqn.params["reverse"] else iterations:
        slices = [_slice_iteration(state, value, number) for value in ins[carried:]]
        results = walk(body, consts, [*ins[:fixed], *carry, *slices], (path, number))
        carry = results[: carried - fixed]
        outs.append(results[carried - fixed :])
    if eqn.params["reverse"]:
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
    return BlockedValue(value.shape[1:], cells, value.cuts[1:], value.origins[1:])


def while_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], walk: WalkJaxpr, path: Any) -> list[BlockedValue]:
    """`while_loop`: the body is walked, the condition is not."""
    params = eqn.params
    # The condition decides how often the body runs and enters no
    # value, so that a leaf that only it reads counts as dead.
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    body, consts = open_jaxpr(params["body_jaxpr"])

    def once(carry: list[BlockedValue]) -> list[BlockedValue]:
        return walk(body, consts, [*ins[for_test:for_body], *carry], path)

    still = [out is given for out, given in zip(body.outvars, body.invars[for_body - for_test :], strict=True)]
    return _walk_body_twice(state, ins[for_body:], still, once)[0]


DATAFLOW_LOOP_RULES: dict[str, Callable[..., list[BlockedValue]]] = {
    "scan": scan_rule,
    "while": while_rule,
    "cond": cond_rule,
}
