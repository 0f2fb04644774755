"""From two ports to a proposal: read, cut, match, and say what is left."""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan

import numpy as np

from equiv.backends.base import Port, Request
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.port_graph import Reading, read, recut
from equiv.infer.dataflow.strided_views import Form, form, whole
from equiv.infer.dataflow.use_graph import Use
from equiv.infer.matching.by_gradient import Telling
from equiv.infer.matching.by_name import Naming, crossed
from equiv.infer.matching.colour_refinement import Palette, settled
from equiv.infer.matching.match import Decision, Matching, by_shape, match
from equiv.infer.matching.proposal import Bounds, Left, Pair, Proposal
from equiv.infer.matching.relations import relation, within
from equiv.infer.matching.splits import cuts


def propose(ports: tuple[Port, Port], request: Request, batch: Mapping[str, np.ndarray]) -> Proposal:
    """Infer the map between two ports.

    Args:
        ports: built, abstractly.
        request: methods and batch, the same for both.
        batch: entry to array, for ties that only numbers decide.

    Raises:
        PortError: a port cannot be traced.
    """
    readings = read(ports[0], request), read(ports[1], request)
    first, second = cuts(readings)
    parts = recut(readings[0], first), recut(readings[1], second)
    naming = Naming(parts)
    telling = Telling(parts, batch, naming.best)
    matching = match((parts[0].skeleton, parts[1].skeleton), (telling, by_shape, naming))
    pairs = _dead(readings, request, _pairs(parts, matching))
    order = {key: place for place, key in enumerate(_order(readings[0]))}
    pairs = _whole(readings, sorted(pairs, key=lambda pair: (order.get(pair.left, len(order)), pair.bounds[0])))
    sizes = [(pair.left, pair.right, _size(pair.bounds[0])) for pair in pairs]
    notes = [*([telling.reason] if telling.reason else []), *_outputs(readings)]
    return Proposal(ports, tuple(pairs), tuple(_left(pairs, readings)), crossed(sizes), tuple(notes))


def _outputs(readings: tuple[Reading, Reading]) -> list[str]:
    """Outputs that the ports do not have in common: the place of a leaf is known by what comes after it."""
    one, two = ([tuple(aval.shape) for aval in reading.program.jaxpr.out_avals] for reading in readings)
    if one == two:
        return []
    names = [reading.port.backend for reading in readings]
    return [f"{names[0]} gives outputs of shapes {one}, {names[1]} {two}; their order decides what is compared"]


def _order(reading: Reading) -> list[NativeKey]:
    """Living leaves in the order in which the program comes to them."""
    skeleton = reading.skeleton
    nodes = [skeleton.owners[place] for place in skeleton.order if skeleton.owners[place] < skeleton.blocks]
    return list(dict.fromkeys(reading.key(node) for node in nodes))


def _size(bounds: Bounds) -> int:
    return int(np.prod([end - start for start, end in bounds]))


def _pairs(readings: tuple[Reading, Reading], matching: Matching) -> list[Pair]:
    groups: dict[int, int] = {}
    for number, group in enumerate(matching.alike, 1):
        # Once one of a group is placed the rest are asked about again: they are of the same group.
        first = next((groups[node] for node in group if node in groups), number)
        groups |= dict.fromkeys(group, first)
    found = []
    for one, two in matching.pairs.items():
        ours, theirs = _uses(readings, one, two)
        forms = _form(readings[0], one, ours), _form(readings[1], two, theirs)
        found.append(
            Pair(
                readings[0].key(one),
                readings[1].key(two),
                (readings[0].blocks[one].bounds, readings[1].blocks[two].bounds),
                relation(*forms),
                _shift(ours, theirs),
                matching.evidence[one],
                groups.get(one, 0),
                ours.operation if ours else "",
            )
        )
    return found


def _uses(readings: tuple[Reading, Reading], one: int, two: int) -> tuple[Use | None, Use | None]:
    """A use of each that is of one kind; a leaf may be used in several places."""
    ours, theirs = readings[0].skeleton.uses[one], readings[1].skeleton.uses[two]
    for use in ours:
        for other in theirs:
            if use.label == other.label and use.form is not None and other.form is not None:
                return use, other
    return (ours[0] if ours else None), (theirs[0] if theirs else None)


def _form(reading: Reading, node: int, use: Use | None) -> Form:
    """How a node is used; where that is not a view of it, as it lies."""
    if use is not None and use.form is not None and use.form.size == reading.blocks[node].size:
        return use.form
    return form(whole(reading.shape(node), reading.blocks[node].bounds))


def _shift(ours: Use | None, theirs: Use | None) -> float:
    """A whole number that only one text adds; any other, such as an epsilon, is a difference of the function."""
    apart = (ours.shift if ours else 0.0) - (theirs.shift if theirs else 0.0)
    return 0.0 if isnan(apart) or not apart.is_integer() else apart


def _whole(readings: tuple[Reading, Reading], pairs: list[Pair]) -> list[Pair]:
    """Parts of two leaves that lie in both as the leaves do are one pair of leaves."""
    groups: dict[tuple[NativeKey, NativeKey], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.left, pair.right), []).append(pair)
    found = []
    for (left, right), some in groups.items():
        one, two = (_node(reading, key) for reading, key in zip(readings, (left, right), strict=True))
        shapes = readings[0].shape(one), readings[1].shape(two)
        full = sum(_size(pair.bounds[0]) for pair in some) == int(np.prod(shapes[0])) == int(np.prod(shapes[1]))
        known = relation(*(_form(reading, node, use) for reading, node, use in _both(readings, one, two)))
        parts = [pair.relation for pair in some]
        same = full and known is not None and all(part is not None and within(known, part) for part in parts)
        if len(some) > 1 and same and len({pair.shift for pair in some}) == 1:
            bounds = tuple(tuple((0, size) for size in shape) for shape in shapes)
            some = [replace(some[0], bounds=(bounds[0], bounds[1]), relation=known)]
        found += some
    return found


def _both(readings: tuple[Reading, Reading], one: int, two: int) -> list[tuple[Reading, int, Use | None]]:
    ours, theirs = _uses(readings, one, two)
    return [(readings[0], one, ours), (readings[1], two, theirs)]


def _node(reading: Reading, key: NativeKey) -> int:
    return next(node for node in range(len(reading.blocks)) if reading.key(node) == key)


def _dead(readings: tuple[Reading, Reading], request: Request, pairs: list[Pair]) -> list[Pair]:
    """The pairs, with those of leaves that only train mode or later calls depend on: counters, running state."""
    if not (readings[0].dead and readings[1].dead):
        return pairs
    later = read(readings[0].port, request, train=True), read(readings[1].port, request, train=True)
    nodes = tuple({reading.key(node): node for node in range(len(reading.blocks))} for reading in later)
    known = {nodes[0][pair.left]: nodes[1][pair.right] for pair in pairs}
    matching = match((later[0].skeleton, later[1].skeleton), (by_shape, Naming(later)), known)
    matching.add([Decision(tuple(_overwritten(later, matching)), "position")])
    fresh = [
        pair for pair in _pairs(later, matching) if pair.left in readings[0].dead and pair.right in readings[1].dead
    ]
    return [*pairs, *fresh]


def _overwritten(readings: tuple[Reading, Reading], matching: Matching) -> list[tuple[int, int]]:
    """Leaves that nothing reads, but that a call writes: by what is written."""
    colours = settled(matching.anchored(), Palette())
    found: dict[object, tuple[list[int], list[int]]] = {}
    for side, reading in enumerate(readings):
        first = reading.skeleton.blocks + len(reading.flow.inputs)
        ends = {name: first + number for number, name in enumerate(reading.program.outputs)}
        for node in range(len(reading.blocks)):
            after = [end for name, end in ends.items() if name.endswith(f" after leaf {reading.key(node)}")]
            if after and node not in reading.skeleton.alive:
                what = tuple(colours[side][end] for end in after)
                found.setdefault(what, ([], []))[side].append(node)
    return [(left[0], right[0]) for left, right in found.values() if len(left) == len(right) == 1]


def _left(pairs: list[Pair], readings: tuple[Reading, Reading]) -> list[Left]:
    found = []
    for side, reading in enumerate(readings):
        paired = [{(pair.left, pair.right)[at] for pair in pairs} for at in (side, 1 - side)]
        for key in reading.keys.values():
            if key not in paired[0]:
                dead = key in reading.dead
                why = (
                    "no output depends on it in eval mode"
                    if dead
                    else _reason(reading, readings[1 - side], key, paired[1])
                )
                found.append(Left(side, key, why, dead))
    return found


def _reason(reading: Reading, other: Reading, key: NativeKey, paired: set[NativeKey]) -> str:
    """Why a living leaf has no pair."""
    who, size = other.port.backend, _elements(reading.port, key)
    alike = [one for one in other.keys.values() if _elements(other.port, one) == size and one not in other.dead]
    free = [one for one in alike if one not in paired]
    if free:
        shown = ", ".join(map(str, free[:3])) + (", ..." if len(free) > 3 else "")
        return f"place, gradient and name do not tell which it is in {who}: {shown}"
    tied = [one for one in alike if len(other.skeleton.uses[_node(other, one)]) > 1]
    if tied:
        return f"{who} has no leaf of {size} elements left; it uses {tied[0]} in several places, which may be both"
    return f"{who} has no leaf of {size} elements left"


def _elements(port: Port, key: NativeKey) -> int:
    return int(np.prod(port.leaves[key].shape))
