"""Map the native leaves of a port by the layer table; a leaf that is not covered exactly once is an error."""

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equiv.backends.base import Leaves, Port
from equiv.backends.library import Library
from equiv.core import packing
from equiv.core.case import Layer, setting_for
from equiv.core.layer_kinds import ONLY, canonical_name, leaf_collections
from equiv.core.layout_trial import inversion_problem, is_own_layout
from equiv.core.layouts import Layout, Part
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey, NativeLeaf
from equiv.core.scope_index import parse_scope
from equiv.errors import CaseError, PortError


def map_port(layers: tuple[Layer, ...], port: Port, library: Library) -> LeafTable:
    """Map every leaf of a port to its canonical name.

    Raises:
        CaseError: a row has no scope, a wrong scope or an unknown kind; or a leaf is covered by no row or by two.
    """
    mapped: dict[NativeKey, list[MappedLeaf]] = {}
    alone = [layer for layer in layers if layer.kind == ONLY]
    for layer in layers:
        if layer.kind == ONLY or _is_of_another_port(layer, alone, port):
            continue
        for leaf in _map_row(layer, port, library):
            others = mapped.setdefault(leaf.key, [])
            if others and (leaf.region is None or others[0].region is None):
                raise CaseError(
                    f"{port.name}: {leaf.key} is covered twice, by {others[0].name} and {leaf.name}.",
                    fix="Give each layer its own scope.",
                    port=port.name,
                )
            others.append(leaf)
    for key, blocks in mapped.items():
        if regions := [leaf.region for leaf in blocks if leaf.region is not None]:
            shared = f"{port.name}: {key} {_native_spec(port, key)}, shared by {blocks[0].name} and others"
            if len(grids := {leaf.grid for leaf in blocks}) > 1:
                counts = " and ".join(str(size) for size in sorted(grid[-1] for grid in grids))
                raise CaseError(
                    f"{shared}: the rows that share it count their columns within {counts} columns.",
                    fix="Give all rows of one leaf the same number after `of`.",
                    port=port.name,
                )
            packing.check_regions(shared, blocks[0].grid, regions)
    found = [leaf for blocks in mapped.values() for leaf in blocks]
    if twice := [name for name, count in Counter(leaf.name for leaf in found).items() if count > 1]:
        keys = " and ".join(str(leaf.key) for leaf in found if leaf.name == twice[0])
        raise CaseError(
            f"{port.name}: {twice[0]} is the name of two leaves, {keys}; only one would be compared.",
            fix="Give each row of the layer table its own path.",
            port=port.name,
        )
    uncovered = [key for key in port.leaves if key not in mapped and port.collections[key] != "random"]
    if uncovered:
        shown = ", ".join(f"{key} {_native_spec(port, key)}" for key in uncovered[:3]) + (
            ", ..." if len(uncovered) > 3 else ""
        )
        raise CaseError(
            f"{port.name}: no row of the layer table covers {shown} ({len(uncovered)} of {len(port.leaves)} leaves).",
            fix="Add a row to the case's layers.",
            port=port.name,
        )
    return LeafTable(port.name, tuple(_mark_held(found, alone, port)), port.library)


def _is_of_another_port(layer: Layer, alone: Sequence[Layer], port: Port) -> bool:
    """Whether a row has no scope for a port that need not have its leaves, as a row `only` says."""
    if setting_for(layer.scopes, port.name, port.library) is not None:
        return False
    return any(one.path == layer.path or one.path.startswith(f"{layer.path}/") for one in alone)


def _mark_held(found: Sequence[MappedLeaf], alone: Sequence[Layer], port: Port) -> Iterator[MappedLeaf]:
    """Yield the leaves, with the value that a row `only` holds one at.

    Raises:
        CaseError: such a row names a leaf that its port lacks or that others have, or its value is none.
    """
    own = {one.path: one for one in alone if setting_for(one.scopes, port.name, port.library) is not None}
    others = {one.path: next(iter(one.scopes)) for one in alone} if alone else {}
    names = [leaf.name for leaf in found]
    for path, row in own.items():
        if path not in names:
            close = difflib.get_close_matches(path, names, n=1, cutoff=0.0) or ["nothing"]
            raise CaseError(
                f"{port.name}: only({port.name!r}, {path!r}) names a leaf that {port.name} does not have; closest is "
                f"{close[0]!r}.",
                fix="Fix the name in the row.",
                port=port.name,
            )
        number = isinstance(row.value, int | float) and math.isfinite(row.value)
        if not (row.value is None or row.value == "initial" or number):
            raise CaseError(
                f"{port.name}: only({port.name!r}, {path!r}) has the value {row.value!r}.",
                fix='Give a finite number, or "initial".',
                port=port.name,
            )
    for leaf in found:
        if leaf.name in others and leaf.name not in own:
            raise CaseError(
                f"{port.name}: only({others[leaf.name]!r}, {leaf.name!r}) says that other ports lack {leaf.name}, but "
                f"{port.name} has it, as {leaf.key}.",
                fix="Remove the row `only`, or the leaf from the row that gives it to this port.",
                port=port.name,
            )
        yield replace(leaf, held=own[leaf.name].value) if leaf.name in own else leaf


def _map_row(layer: Layer, port: Port, library: Library) -> list[MappedLeaf]:
    full_scope = setting_for(layer.scopes, port.name, port.library)
    if full_scope is None:
        raise CaseError(
            f"{port.name}: row {layer.path} has no scope for it.",
            fix=f'Add {port.name}="..." to the row.',
            port=port.name,
        )
    if layer.kind not in library.leaves:
        raise CaseError(
            f"{port.name}: row {layer.path} has the kind {layer.kind!r}, which {library.name} does not have; "
            f"it has {', '.join(sorted(library.leaves))}.",
            port=port.name,
        )
    natives = _native_forms(layer, library)
    scope, item, part = parse_scope(full_scope)
    found = {
        name: (native, key) for name, native in natives if (key := library.native_key(native, scope)) in port.leaves
    }
    if not found:
        raise CaseError(_wrong_scope(layer, port, library, [native for _, native in natives]))
    row_layouts = _row_layouts(layer, port, library)
    if unknown := sorted(set(row_layouts) - {name for name, _ in natives}):
        raise CaseError(
            f"{port.name}: row {layer.path} has a layout for {unknown[0]!r}, a leaf that it does not have; "
            f"it has {', '.join(sorted({repr(name) for name, _ in natives}))}.",
            fix="Fix the row's packing.",
            port=port.name,
        )
    return [
        _map_leaf(layer, port, key, name, _apply_row_layout(layer, port, native, row_layouts.get(name), part), item)
        for name, (native, key) in found.items()
    ]


def _native_forms(layer: Layer, library: Library) -> list[tuple[str, NativeLeaf]]:
    """Canonical leaf names with their native forms; alternatives of one leaf have the same name."""
    table: Mapping[str, NativeLeaf | tuple[NativeLeaf, ...]] = library.leaves[layer.kind]
    if isinstance(any_leaf := table.get("*"), NativeLeaf):
        return [(name, NativeLeaf(any_leaf.collection, name)) for name in leaf_collections(layer)]
    return [(name, form) for name, forms in table.items() for form in (forms if isinstance(forms, tuple) else (forms,))]


def _row_layouts(layer: Layer, port: Port, library: Library) -> Mapping[str, Layout]:
    """The layouts that a row gives a port's leaves in place of those of its kind."""
    spatial = layer.channels_first
    if isinstance(spatial, Mapping):
        spatial = setting_for(spatial, port.name, port.library) or 0
    own = setting_for(layer.layouts, port.name, port.library) or {}
    return {**library.channels_first_layouts(layer.kind, spatial), **own} if spatial else own


def _apply_row_layout(
    layer: Layer, port: Port, native: NativeLeaf, layout: Layout | None, part: Part | None
) -> NativeLeaf:
    """The native form of a leaf, with the layout and the part of its row in place of those of its kind."""
    if part is not None and native.part is not None:
        raise CaseError(
            f"{port.name}: row {layer.path} takes {part} of {native.name!r}, which the kind {layer.kind!r} "
            "splits already.",
            fix="Remove the index from the scope.",
            port=port.name,
        )
    return replace(native, layout=layout or native.layout, part=part or native.part)


def _map_leaf(layer: Layer, port: Port, key: NativeKey, name: str, native: NativeLeaf, item: int | None) -> MappedLeaf:
    struct, full = port.leaves[key], canonical_name(layer, name)
    if item is not None and item >= (struct.shape or (0,))[0]:
        raise CaseError(
            f"{port.name}: row {layer.path} says {setting_for(layer.scopes, port.name, port.library)!r}, "
            f"but {key} is {_native_spec(port, key)}.",
            fix="Fix the index, which counts from 0 on the first axis.",
            port=port.name,
        )
    if isinstance(native.part, packing.Columns | packing.Block):
        _check_part(layer, port, key, native.part, 0 if item is None else 1)
    leaf = MappedLeaf(
        name=full,
        key=key,
        layout=native.layout,
        spec=LeafSpec((), str(struct.dtype), port.collections[key]),
        native_shape=struct.shape,
        mirrors=None if native.mirrors is None else canonical_name(layer, native.mirrors),
        fixed_value=native.fixed_value,
        part=native.part,
        stack_index=item,
        annotation=port.annotations.get(key),
    )
    if is_own_layout(leaf.layout) and (problem := inversion_problem(leaf.layout, leaf.block_shape)):
        raise CaseError(
            f"{port.name}: the layout {leaf.layout} of {full} is not invertible on {_native_spec(port, key)}: "
            f"{problem}.",
            fix="A layout has to bring every leaf back: to_native(to_canonical(leaf), leaf.shape) is the leaf.",
            port=port.name,
            leaf=full,
        )
    return replace(leaf, spec=replace(leaf.spec, shape=_canonical_shape(layer, port, leaf)))


def _canonical_shape(layer: Layer, port: Port, leaf: MappedLeaf) -> tuple[int, ...]:
    try:
        return leaf.layout.canonical_shape(leaf.block_shape)
    except IndexError as error:
        # Such as one row of a transposed kernel: what is left of it has no second axis to swap.
        scope = setting_for(layer.scopes, port.name, port.library)
        raise CaseError(
            f"{port.name}: row {layer.path} ({layer.kind}) says {scope!r}, "
            f"but {leaf.key} has the shape {leaf.block_shape} there, and its layout ({leaf.layout}) needs more axes.",
            fix="Fix the kind of the row, or its scope.",
            port=port.name,
            leaf=leaf.name,
        ) from error


def _check_part(layer: Layer, port: Port, key: NativeKey, part: packing.Columns | packing.Block, first: int) -> None:
    shape = port.leaves[key].shape[first:]
    number = 1 if isinstance(part, packing.Columns) else len(part.items)
    if number > len(shape) or not _is_inside(part, shape):
        what = "columns: start and stop index on the last axis"
        if isinstance(part, packing.Columns) and part.period:
            what += ", within a number of columns that divides it"
        if isinstance(part, packing.Block):
            what = "index: on each axis start and stop, or one index, counted from 0"
        raise CaseError(
            f"{port.name}: row {layer.path} says {setting_for(layer.scopes, port.name, port.library)!r}, "
            f"but {key} is {_native_spec(port, key)}.",
            fix=f"Fix the {what}.",
            port=port.name,
        )


def _is_inside(part: packing.Columns | packing.Block, shape: tuple[int, ...]) -> bool:
    grid = part.grid(shape)
    bounds = zip(part.region(shape), grid, strict=True)
    return math.prod(grid) == math.prod(shape) and all(0 <= start < stop <= size for (start, stop), size in bounds)


def _wrong_scope(layer: Layer, port: Port, library: Library, natives: list[NativeLeaf]) -> str:
    scope = setting_for(layer.scopes, port.name, port.library) or ""
    leaves = sorted(key for key in port.leaves if port.collections[key] != "random")
    # If the kind has no collection of its own, the scope begins with it.
    scope_has_collection = all(native.collection == "" for native in natives)
    paths = [f"{key.collection}/{key.path}" if scope_has_collection else key.path for key in leaves]
    wanted = [str(library.native_key(native, parse_scope(scope)[0])) for native in natives[:3]]
    close = difflib.get_close_matches(scope, paths, n=1, cutoff=0.0) or ["nothing"]
    return (
        f"{port.name}: row {layer.path} ({layer.kind}) says {scope!r}, but the model has no such leaf there; "
        f"closest is {close[0]!r}. Fix the scope in the row, which looks for {', '.join(wanted)}."
    )


def _native_spec(port: Port, key: NativeKey) -> LeafSpec:
    struct = port.leaves[key]
    return LeafSpec(struct.shape, str(struct.dtype))


def to_native_leaves(table: LeafTable, variables: Mapping[str, Any], float64: bool = False) -> Leaves:
    """Convert canonical variables to native leaves; shape and dtype are checked, nothing is broadcast or cast.

    Args:
        table: the port's leaf table.
        variables: canonical name to array.
        float64: whether every float leaf is float64 instead of its own dtype.

    Raises:
        PortError: a variable is missing or unknown, or has another shape or dtype.
    """
    if unknown := sorted(set(variables) - set(table.names())):
        raise PortError(
            f"{table.port}: cannot load {unknown[0]}: the model has no such leaf.", fix="Remove it.", port=table.port
        )
    for leaf in table.leaves:
        if leaf.name not in variables:
            raise PortError(
                f"{table.port}: cannot load: {leaf.name} {leaf.spec} is missing.",
                fix="Give it a value.",
                port=table.port,
            )
        array = variables[leaf.name]
        dtype = to_float64_dtype(leaf.spec.dtype) if float64 else leaf.spec.dtype
        if tuple(array.shape) != leaf.spec.shape or str(array.dtype) != dtype:
            got = LeafSpec(tuple(array.shape), str(array.dtype))
            raise PortError(
                f"{table.port}: cannot load {leaf.name}: got {got}, the model has {LeafSpec(leaf.spec.shape, dtype)}.",
                fix="Fix the layout or the row in the layer table.",
                port=table.port,
            )
    return {key: packing.assemble_native_leaf(leaves, variables) for key, leaves in leaves_by_native_key(table).items()}


def leaves_by_native_key(table: LeafTable) -> dict[NativeKey, tuple[MappedLeaf, ...]]:
    """Native key to the canonical leaves that it contains: one, or several blocks."""
    leaves: dict[NativeKey, list[MappedLeaf]] = {}
    for leaf in table.leaves:
        leaves.setdefault(leaf.key, []).append(leaf)
    return {key: tuple(held) for key, held in leaves.items()}


def to_canonical_variables(table: LeafTable, native: Mapping[NativeKey, Any]) -> dict[str, Any]:
    """Convert native leaves to canonical variables."""
    return {leaf.name: leaf.to_canonical(native[leaf.key]) for leaf in table.leaves}


def to_float64_dtype(dtype: str) -> str:
    """The dtype of a leaf in a float64 run: float64 for every float dtype, complex128 for complex numbers."""
    return {"complex64": "complex128"}.get(dtype, "float64" if dtype in ("float32", "float16", "bfloat16") else dtype)
