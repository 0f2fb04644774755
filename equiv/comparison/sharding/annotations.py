"""Compare what two ports say of the sharding of each leaf, in one order of axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equiv.comparison.sharding.observed import PortSharding, ShardedLeaf, ShardingComparison
from equiv.core.annotation import Annotation, as_axes, names_text, resolve_names, unruled_names
from equiv.core.axis_names import AxisNames, MergedAxis, canonical_axis_names, stack_axis_names
from equiv.core.results import Finding
from equiv.programs.carry import OPTIMIZER_STATE

NOTHING = Annotation(())


@dataclass(frozen=True)
class _Side:
    """One leaf of one port.

    Attributes:
        port: the port.
        leaf: the leaf.
        axes: what its axes are on, in the canonical order; None: its layout does more than to move axes.
        stack: what the axes are on of which it is one index.
    """

    port: PortSharding
    leaf: ShardedLeaf
    axes: AxisNames | None
    stack: AxisNames

    @property
    def text(self) -> str:
        """What the library keeps, and what that is on a mesh where it is something else."""
        if self.leaf.annotation is None:
            return "nothing"
        kept = str(self.leaf.annotation)
        axes = "" if self.axes is None else names_text(self.axes)
        return kept if axes in ("", kept) else f"{kept}, {axes} on the mesh"


def compare_annotations(both: ShardingComparison) -> Iterator[Finding]:
    """Yield a finding for every leaf of which a port says something, where both ports say something of any leaf.

    Leaves that differ in names that nothing explains are left out, see `unexplained_names`.
    """
    left, right = both.reference, both.candidate
    if not left.annotated or not right.annotated:
        return
    foreign = unexplained_names(both)
    for name in left.leaves:
        if name in right.leaves and not (left.leaves[name].follows and right.leaves[name].follows):
            sides = (_read(both, left, name), _read(both, right, name))
            says = any(side.leaf.annotation is not None for side in sides)
            if says and not foreign.intersection(_differing_names(*sides)):
                yield _compare(both, name, *sides)


def _read(both: ShardingComparison, port: PortSharding, name: str) -> _Side:
    leaf = port.leaves[name]
    names = resolve_names(leaf.annotation or NOTHING, port.rules, both.mesh_axes)
    axes = canonical_axis_names(leaf.mapped, names)
    return _Side(port, leaf, axes, () if axes is None else stack_axis_names(leaf.mapped, names))


def _compare(both: ShardingComparison, name: str, left: _Side, right: _Side) -> Finding:
    place = f"leaf {name}"
    if left.axes is None or right.axes is None:
        return _compare_as_stored(place, left, right)
    stacked = len(left.stack) == len(right.stack) and left.stack != right.stack
    if left.axes == right.axes and not stacked:
        return Finding(place, "exact", reference=left.text, candidate=right.text)
    note = f"{_describe(left, right)}. {_describe_fix(left, right, both.mesh_axes)}"
    return Finding(place, "refuted", note=note, reference=left.text, candidate=right.text)


def _compare_as_stored(place: str, left: _Side, right: _Side) -> Finding:
    """Compare annotations of a leaf whose axes cannot be followed to the canonical ones."""
    for side in (left, right):
        annotation, shape = side.leaf.annotation, side.leaf.mapped.native_shape
        if annotation is not None and len(annotation.names) > len(shape):
            note = (
                f"{side.port.port} names {len(annotation.names)} axes of {side.leaf.mapped.key}, which has {len(shape)}"
            )
            return Finding(
                place, "refuted", note=f"{note}. Name each axis once.", reference=left.text, candidate=right.text
            )
    if left.leaf.mapped.layout == right.leaf.mapped.layout and left.leaf.annotation == right.leaf.annotation:
        return Finding(place, "exact", reference=left.text, candidate=right.text)
    note = "its layout does more than to move axes, so that it is not known which axis is which"
    return Finding(place, "unidentifiable", note=note, reference=left.text, candidate=right.text)


def _differing_names(left: _Side, right: _Side) -> Iterator[str]:
    """Yield the names of axes that the ports have at different places."""
    sides = ((*(side.axes or ()), *side.stack) for side in (left, right))
    for pair in zip(*sides, strict=False):
        if pair[0] != pair[1]:
            yield from (axis for name in pair if not isinstance(name, MergedAxis) for axis in as_axes(name))


def unexplained_names(both: ShardingComparison) -> frozenset[str]:
    """The names that only one port uses, where each uses some that the other does not, and nothing says what they are.

    Two names may then stand for one axis of a mesh.
    """
    if both.mesh_axes is not None or not (both.reference.annotated and both.candidate.annotated):
        return frozenset()
    own = [_own_names(port) for port in (both.reference, both.candidate)]
    return (own[0] ^ own[1]) if own[0] - own[1] and own[1] - own[0] else frozenset()


def _own_names(port: PortSharding) -> frozenset[str]:
    annotations = (leaf.annotation for leaf in port.leaves.values() if leaf.annotation is not None)
    names = (resolve_names(one, port.rules) for one in annotations)
    return frozenset(axis for one in names for name in one for axis in as_axes(name))


def _describe(left: _Side, right: _Side) -> str:
    """What differs, in words."""
    one, other = left.port.port, right.port.port
    for side, port in ((left, one), (right, other)):
        if side.leaf.annotation is None:
            return f"{port} does not say how it is sharded: it is on every device as a whole"
    counts = [len((side.leaf.annotation or NOTHING).names) for side in (left, right)]
    ndims = [len(side.leaf.mapped.native_shape) for side in (left, right)]
    for side, count, ndim, other_count in zip((left, right), counts, ndims, counts[::-1], strict=True):
        if count == ndim - 1 and other_count == ndim:
            return (
                f"{side.port.port} names {count} of its {ndim} axes, and names count from the first: the axis along "
                "which layers are stacked has lost its own"
            )
    assert left.axes is not None, "said before"
    assert right.axes is not None, "said before"
    if sorted(map(str, left.axes)) == sorted(map(str, right.axes)) and left.axes != right.axes:
        return f"the axes are swapped in {other}"
    return f"{one} shards it otherwise than {other}"


def _describe_fix(left: _Side, right: _Side, mesh_axes: Sequence[str] | None) -> str:
    """How the candidate would be sharded as the reference is."""
    one, other = left.leaf.annotation or NOTHING, right.leaf.annotation or NOTHING
    lost = [
        axis
        for axis in dict.fromkeys(axis for name in one.names for axis in as_axes(name))
        if _resolve_one(axis, one, left, mesh_axes) != _resolve_one(axis, other, right, mesh_axes)
    ]
    if one.names == other.names and lost:
        return f"Both name the same axes: mend the rules of {right.port.port} for {', '.join(lost)}."
    mapped = right.leaf.mapped
    order = "" if left.leaf.mapped.storage_description == mapped.storage_description else ", in its own order of axes"
    where = f"{mapped.key} of {right.port.port}"
    if mapped.name.startswith(OPTIMIZER_STATE):
        where = f"{mapped.name}, which the optimizer of {right.port.port} keeps,"
    return f"Give {where} the names {one}{order}."


def _resolve_one(axis: str, annotation: Annotation, side: _Side, mesh_axes: Sequence[str] | None) -> object:
    return resolve_names(Annotation((axis,), annotation.rules), side.port.rules, mesh_axes)


def unruled(port: PortSharding, mesh_axes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of axes that neither are axes of the meshes nor have a rule: what they name is not sharded."""
    annotations = (leaf.annotation for leaf in port.leaves.values() if leaf.annotation is not None)
    return tuple(dict.fromkeys(name for one in annotations for name in unruled_names(one, port.rules, mesh_axes)))
