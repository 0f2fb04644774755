"""Layer table and native leaves: every leaf of a port is accounted for, or the case is an error."""

import difflib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from equiv.backends.base import Leaves, Port
from equiv.case import Layer
from equiv.errors import CaseError, PortError
from equiv.layers import canonical, leaves_of
from equiv.variables import LeafSpec, LeafTable, MappedLeaf, Native, NativeKey


def map_port(layers: tuple[Layer, ...], port: Port, backend: ModuleType) -> LeafTable:
    """The leaf table of a port: each of its leaves, once, with its canonical name.

    Raises:
        CaseError: a row without a scope, with a wrong scope or unknown kind; a leaf that no row or two rows cover.
    """
    mapped: dict[NativeKey, MappedLeaf] = {}
    for layer in layers:
        for leaf in _row(layer, port, backend):
            if leaf.key in mapped:
                raise CaseError(
                    f"{port.backend}: {leaf.key} is covered twice, by {mapped[leaf.key].name} and {leaf.name}. "
                    "Give each layer its own scope."
                )
            mapped[leaf.key] = leaf
    names = [leaf.name for leaf in mapped.values()]
    if twice := [name for name in names if names.count(name) > 1]:
        keys = " and ".join(str(leaf.key) for leaf in mapped.values() if leaf.name == twice[0])
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
    return LeafTable(port.backend, tuple(mapped.values()))


def _row(layer: Layer, port: Port, backend: ModuleType) -> list[MappedLeaf]:
    if port.backend not in layer.scopes:
        raise CaseError(f'{port.backend}: row {layer.path} has no scope for it. Add {port.backend}="..." to the row.')
    if layer.kind not in backend.LEAVES:
        raise CaseError(
            f"{port.backend}: row {layer.path} is of the kind {layer.kind!r}, which this backend does not know; "
            f"it knows {', '.join(sorted(backend.LEAVES))}."
        )
    table: Mapping[str, Native] = backend.LEAVES[layer.kind]
    wanted = leaves_of(layer)
    natives = dict(table) if "*" not in table else {name: Native(table["*"].collection, name) for name in wanted}
    scope = layer.scopes[port.backend]
    found = {
        name: (native, key)
        for name, native in natives.items()
        if (key := backend.native_key(native, scope)) in port.leaves
    }
    if not found:
        raise CaseError(_wrong_scope(layer, port, backend, list(natives.values())))
    rows = []
    for name, (native, key) in found.items():
        struct = port.leaves[key]
        spec = LeafSpec(native.layout.canonical_shape(struct.shape), str(struct.dtype), port.collections[key])
        copies = None if native.copies is None else canonical(layer, native.copies)
        full = canonical(layer, name)
        rows.append(MappedLeaf(full, key, native.layout, spec, struct.shape, copies, native.constant))
    return rows


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
    native = {}
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
        native[leaf.key] = leaf.layout.to_native(array, leaf.native_shape)
    return native


def to_canonical(table: LeafTable, native: Mapping[NativeKey, Any]) -> dict[str, Any]:
    """Native leaves as canonical variables."""
    return {leaf.name: leaf.layout.to_canonical(native[leaf.key]) for leaf in table.leaves}


def wide(dtype: str) -> str:
    """The dtype of a leaf in a lifted run: float64 for every float."""
    return "float64" if dtype in ("float32", "float16", "bfloat16") else dtype
