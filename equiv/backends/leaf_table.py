"""Layer table and native leaves: every leaf of a port is accounted for, or the case is an error."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from equiv.backends.base import Leaves, Port
from equiv.core import packing as layouts
from equiv.core.case import Layer
from equiv.core.layer_kinds import canonical, leaves_of
from equiv.core.layouts import Layout
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, Native, NativeKey
from equiv.errors import CaseError, PortError


def map_port(layers: tuple[Layer, ...], port: Port, backend: ModuleType) -> LeafTable:
    """The leaf table of a port: each of its leaves, once, with its canonical name.

    Raises:
        CaseError: a row without a scope, with a wrong scope or unknown kind; a leaf that no row or two rows cover.
    """
    mapped: dict[NativeKey, list[MappedLeaf]] = {}
    for layer in layers:
        for leaf in _row(layer, port, backend):
            others = mapped.setdefault(leaf.key, [])
            if others and (leaf.region is None or others[0].region is None):
                raise CaseError(
                    f"{port.backend}: {leaf.key} is covered twice, by {others[0].name} and {leaf.name}. "
                    "Give each layer its own scope."
                )
            others.append(leaf)
    for key, blocks in mapped.items():
        if regions := [leaf.region for leaf in blocks if leaf.region is not None]:
            shared = f"{port.backend}: {key} {_spec(port, key)}, shared by {blocks[0].name} and others"
            layouts.check_regions(shared, port.leaves[key].shape, regions)
    found = [leaf for blocks in mapped.values() for leaf in blocks]
    names = [leaf.name for leaf in found]
    if twice := [name for name in names if names.count(name) > 1]:
        keys = " and ".join(str(leaf.key) for leaf in found if leaf.name == twice[0])
        raise CaseError(
            f"{port.backend}: {twice[0]} is the name of two leaves, {keys}, of which one would not be compared. "
            "Give each row of the layer table its own path."
        )
    left = [key for key in port.leaves if key not in mapped and port.collections[key] != "random"]
    if left:
        shown = ", ".join(f"{key} {_spec(port, key)}" for key in left[:3]) + (", ..." if len(left) > 3 else "")
        raise CaseError(
            f"{port.backend}: no row of the layer table covers {shown} ({len(left)} of {len(port.leaves)} leaves). "
            "Add a row to the case's layers."
        )
    return LeafTable(port.backend, tuple(found))


def _row(layer: Layer, port: Port, backend: ModuleType) -> list[MappedLeaf]:
    if port.backend not in layer.scopes:
        raise CaseError(f'{port.backend}: row {layer.path} has no scope for it. Add {port.backend}="..." to the row.')
    if layer.kind not in backend.LEAVES:
        raise CaseError(
            f"{port.backend}: row {layer.path} is of the kind {layer.kind!r}, which this backend does not know; "
            f"it knows {', '.join(sorted(backend.LEAVES))}."
        )
    natives = _natives(layer, backend)
    scope, item, columns = _place(layer.scopes[port.backend])
    found = {
        name: (native, key) for name, native in natives if (key := backend.native_key(native, scope)) in port.leaves
    }
    if not found:
        raise CaseError(_wrong_scope(layer, port, backend, [native for _, native in natives]))
    own = layer.layouts.get(port.backend, {})
    if unknown := sorted(set(own) - {name for name, _ in natives}):
        raise CaseError(
            f"{port.backend}: row {layer.path} has a layout for {unknown[0]!r}, a leaf that it does not have; "
            f"it has {', '.join(sorted({repr(name) for name, _ in natives}))}. Mend the row's layouts."
        )
    return [
        _mapped(layer, port, key, name, _changed(layer, port, native, own.get(name), columns), item)
        for name, (native, key) in found.items()
    ]


def _natives(layer: Layer, backend: ModuleType) -> list[tuple[str, Native]]:
    """Canonical leaf to its native form; a library that stores a kind in several ways has several of one name."""
    table: Mapping[str, Native | tuple[Native, ...]] = backend.LEAVES[layer.kind]
    if isinstance(every := table.get("*"), Native):
        return [(name, Native(every.collection, name)) for name in leaves_of(layer)]
    return [(name, one) for name, ways in table.items() for one in (ways if isinstance(ways, tuple) else (ways,))]


def _place(scope: str) -> tuple[str, int | None, layouts.Columns | None]:
    """A scope; where it ends in `[2]` the index on the first axis of stacked leaves; in `[..., 0:8]` columns."""
    found = re.fullmatch(r"(.*?)(?:\[(\d+)\])?(?:\[\.\.\., ?(\d+):(\d+)\])?", scope)
    assert found is not None  # every part of the pattern may be empty
    columns = None if found[3] is None else layouts.Columns(int(found[3]), int(found[4]))
    return found[1], None if found[2] is None else int(found[2]), columns


def _changed(
    layer: Layer, port: Port, native: Native, layout: Layout | None, columns: layouts.Columns | None
) -> Native:
    """How a library stores a leaf, where a row says otherwise than its kind."""
    if columns is not None and native.part is not None:
        raise CaseError(
            f"{port.backend}: row {layer.path} takes {columns} of {native.name!r}, of which the kind {layer.kind!r} "
            "takes parts already. Leave the columns out of the scope."
        )
    return replace(native, layout=layout or native.layout, part=columns or native.part)


def _mapped(layer: Layer, port: Port, key: NativeKey, name: str, native: Native, item: int | None) -> MappedLeaf:
    struct, full = port.leaves[key], canonical(layer, name)
    if item is not None and item >= (struct.shape or (0,))[0]:
        raise CaseError(
            f"{port.backend}: row {layer.path} says {layer.scopes[port.backend]!r}, but {key} is {_spec(port, key)}. "
            "Mend the index, which counts from 0 on the first axis."
        )
    if isinstance(native.part, layouts.Columns):
        _check_columns(layer, port, key, native.part, 0 if item is None else 1)
    leaf = MappedLeaf(
        name=full,
        key=key,
        layout=native.layout,
        spec=LeafSpec((), str(struct.dtype), port.collections[key]),
        native_shape=struct.shape,
        copies=None if native.copies is None else canonical(layer, native.copies),
        constant=native.constant,
        part=native.part,
        item=item,
    )
    return replace(leaf, spec=replace(leaf.spec, shape=native.layout.canonical_shape(leaf.block_shape)))


def _check_columns(layer: Layer, port: Port, key: NativeKey, columns: layouts.Columns, first: int) -> None:
    shape = port.leaves[key].shape[first:]
    if not shape or not columns.start < columns.stop <= shape[-1]:
        raise CaseError(
            f"{port.backend}: row {layer.path} says {layer.scopes[port.backend]!r}, but {key} is {_spec(port, key)}. "
            "Mend the columns, which are first and one past the last index of the last axis."
        )


def _wrong_scope(layer: Layer, port: Port, backend: ModuleType, natives: list[Native]) -> str:
    scope = layer.scopes[port.backend]
    leaves = sorted(key for key in port.leaves if port.collections[key] != "random")
    # Where a kind has no collection of its own, the scope names it first.
    named = all(native.collection == "" for native in natives)
    paths = [f"{key.collection}/{key.path}" if named else key.path for key in leaves]
    wanted = [str(backend.native_key(native, scope)) for native in natives[:3]]
    close = difflib.get_close_matches(scope, paths, n=1, cutoff=0.0) or ["nothing"]
    return (
        f"{port.backend}: row {layer.path} ({layer.kind}) says {scope!r}, but the model has no such leaf there; "
        f"closest is {close[0]!r}. Mend the scope in the row, which looks for {', '.join(wanted)}."
    )


def _spec(port: Port, key: NativeKey) -> LeafSpec:
    struct = port.leaves[key]
    return LeafSpec(struct.shape, str(struct.dtype))


def to_native(table: LeafTable, variables: Mapping[str, Any], widened: bool = False) -> Leaves:
    """Canonical variables as native leaves; shape and dtype are checked, nothing is broadcast or cast.

    Args:
        table: the port's leaf table.
        variables: canonical name to array.
        widened: whether every float leaf is float64 instead of its own dtype (a lifted run).

    Raises:
        PortError: a missing or unknown variable, or one of another shape or dtype.
    """
    if unknown := sorted(set(variables) - set(table.names())):
        raise PortError(f"{table.backend}: cannot load {unknown[0]}: the model has no such leaf. Leave it out.")
    for leaf in table.leaves:
        if leaf.name not in variables:
            raise PortError(f"{table.backend}: cannot load: {leaf.name} {leaf.spec} is missing. Give it a value.")
        array = variables[leaf.name]
        dtype = wide(leaf.spec.dtype) if widened else leaf.spec.dtype
        if tuple(array.shape) != leaf.spec.shape or str(array.dtype) != dtype:
            got = LeafSpec(tuple(array.shape), str(array.dtype))
            raise PortError(
                f"{table.backend}: cannot load {leaf.name}: got {got}, the model has "
                f"{LeafSpec(leaf.spec.shape, dtype)}. Mend the layout or the row in the layer table."
            )
    return {key: layouts.to_native(leaves, variables) for key, leaves in by_key(table).items()}


def by_key(table: LeafTable) -> dict[NativeKey, tuple[MappedLeaf, ...]]:
    """Native leaf to what it holds: one canonical leaf, or several blocks."""
    held: dict[NativeKey, tuple[MappedLeaf, ...]] = {}
    for leaf in table.leaves:
        held[leaf.key] = (*held.get(leaf.key, ()), leaf)
    return held


def to_canonical(table: LeafTable, native: Mapping[NativeKey, Any]) -> dict[str, Any]:
    """Native leaves as canonical variables."""
    return {leaf.name: leaf.to_canonical(native[leaf.key]) for leaf in table.leaves}


def wide(dtype: str) -> str:
    """The dtype of a leaf in a lifted run: float64 for every float."""
    return "float64" if dtype in ("float32", "float16", "bfloat16") else dtype
