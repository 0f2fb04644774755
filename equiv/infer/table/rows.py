"""Turn pairs of leaves into rows of a layer table: known kinds of layers first, then single parameters."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import jax

from equiv.backends.base import Port
from equiv.backends.leaf_table import map_port
from equiv.backends.library import Library
from equiv.backends.registry import load_library
from equiv.core.case import Layer
from equiv.core.layouts import Identity
from equiv.core.leaves import MappedLeaf, NativeKey, NativeLeaf
from equiv.core.packing import Columns
from equiv.errors import EquivError
from equiv.infer.dataflow.strided_views import access_pattern
from equiv.infer.matching.proposal import Bounds, LeafPair, Proposal
from equiv.infer.matching.relations import element_map
from equiv.infer.table.layout_search import canonical_layouts
from equiv.infer.table.leaf_views import (
    add_shift_layout,
    canonical_view,
    columns_index,
    leaf_bounds,
    packed_columns,
    part_index,
    stack_index,
    within_parts,
)
from equiv.infer.table.row_templates import (
    RowTemplate,
    all_row_templates,
    native_leaves,
    possible_scopes,
    template_fits,
)


@dataclass(frozen=True)
class InferredRow:
    """One row of a layer table, and the call that creates it.

    Attributes:
        layer: the row.
        function: of `equiv.core.layers`.
        arguments: keyword arguments other than path and scopes.
        pairs: indices of the pairs that it covers.
        keys: native leaves that it covers, in either port.
    """

    layer: Layer
    function: str
    arguments: tuple[tuple[str, Any], ...] = ()
    pairs: tuple[int, ...] = ()
    keys: tuple[frozenset[NativeKey], frozenset[NativeKey]] = (frozenset(), frozenset())


def infer_rows(proposal: Proposal) -> tuple[tuple[InferredRow, ...], tuple[str, ...]]:
    """The layer table of a proposal, and a message for each pair that no row can express."""
    left, right = proposal.ports
    names, libraries = (left.name, right.name), (load_library(left.library), load_library(right.library))
    finder = RowFinder(proposal, names, libraries)
    found: list[InferredRow] = []
    done: set[int] = set()
    problems: list[str] = []
    for place in range(len(proposal.pairs)):
        if place in done:
            continue
        # Kinds before single leaves: one row for a layer, in the words of its library, is what a person would write.
        row = finder.find_row(place, done) or finder.single_leaf_row(place)
        if isinstance(row, str):
            problems.append(row)
            continue
        found.append(row)
        done |= set(row.pairs)
    return tuple(_name_rows(_group_modules(found, names), names, libraries)), tuple(problems)


def _group_modules(found: list[InferredRow], names: tuple[str, str]) -> list[InferredRow]:
    """Merge parameters of one module whose names are equal in both ports into one row."""
    groups: dict[object, list[InferredRow]] = {}
    for number, row in enumerate(found):
        scopes = [re.fullmatch(r"(?:(.*)[./])?([^./\[\]]+)", row.layer.scopes[name]) for name in names]
        leaves = {scope[2] for scope in scopes if scope}
        alone = row.function != "parameter" or row.arguments or len(leaves) != 1 or None in scopes
        key = number if alone else tuple(scope[1] or "" for scope in scopes if scope)
        groups.setdefault(key, []).append(row)
    return [some[0] if len(some) == 1 else _module_row(key, some, names) for key, some in groups.items()]


def _module_row(scopes: Any, some: list[InferredRow], names: tuple[str, str]) -> InferredRow:
    leaves = tuple(re.split(r"[./]", row.layer.scopes[names[0]])[-1] for row in some)
    layer = Layer("row", "module", dict(zip(names, scopes, strict=True)), leaves)
    keys = [frozenset().union(*(row.keys[side] for row in some)) for side in (0, 1)]
    return InferredRow(layer, "module", (), tuple(number for row in some for number in row.pairs), (keys[0], keys[1]))


class RowFinder:
    """Finds the row that a pair belongs to."""

    def __init__(self, proposal: Proposal, names: tuple[str, str], libraries: tuple[Library, Library]) -> None:
        self.pairs, self.ports, self.names, self.libraries = proposal.pairs, proposal.ports, names, libraries
        self.unpaired_keys = {one.key for one in proposal.unpaired if not one.dead}
        self.pair_numbers = {(pair.left, pair.bounds[0]): number for number, pair in enumerate(proposal.pairs)}
        self.templates = [
            (template, tuple(native_leaves(library, template) for library in libraries))
            for template in all_row_templates(names, libraries)
        ]

    def find_row(self, place: int, done: Set[int]) -> InferredRow | None:
        """The largest row of a known kind whose leaf map agrees with the proposal, without pairs that are `done`."""
        pair = self.pairs[place]
        for template, natives in self.templates:
            scopes = [
                list(possible_scopes(key, native, library))
                for key, native, library in zip((pair.left, pair.right), natives, self.libraries, strict=True)
            ]
            # Names only propose a kind here. `_row` takes it if its leaf map says the same as the programs did.
            for left, right in product(*scopes):
                for columns in product(*self._column_choices(pair)):
                    row = self._row(template, natives, (left, right), pair, columns)
                    if row is not None and done.isdisjoint(row.pairs):
                        return row
        return None

    def _column_choices(self, pair: LeafPair) -> Iterator[tuple[Columns | None, ...]]:
        """On each side, the columns that a row may be of; None: its kind splits the leaf itself, as packed gates."""
        for side, bounds in enumerate(pair.bounds):
            found = packed_columns(bounds, pair.shapes[side], self._shape(side, pair))
            yield (None,) if found is None else (found, None)

    def _row(
        self,
        template: RowTemplate,
        natives: tuple[list[NativeLeaf], ...],
        scopes: tuple[str, str],
        pair: LeafPair,
        columns: Sequence[Columns | None],
    ) -> InferredRow | None:
        items = tuple(map(stack_index, pair.bounds, pair.shapes))
        tables = []
        for side, scope in enumerate(scopes):
            keys = {self.libraries[side].native_key(one, scope) for one in natives[side]} & set(self.ports[side].leaves)
            layer = template.layer("row", {self.names[side]: scope if items[side] is None else f"{scope}[0]"})
            try:
                tables.append(
                    _map_part(layer, self.ports[side], self.libraries[side], keys, items[side], columns[side])
                )
            # The leaves at this scope are no such layer, which is an answer and no error: the next kind is tried.
            except EquivError:
                return None
        ours, theirs = ({leaf.name: leaf for leaf in table} for table in tables)
        both = {name: leaf for name, leaf in ours.items() if name in theirs}
        # A leaf of one port only must be unpaired: the structure check of the run reports it.
        single = {leaf.key for name, leaf in (ours | theirs).items() if name not in both and not leaf.library_only}
        if not both or not single <= self.unpaired_keys or not template_fits(template, both, scopes, pair):
            return None
        held = {name: self._pair_number(ours[name], theirs[name]) for name in both}
        # What both libraries keep for themselves may have no use in the programs that decides its pair.
        if any(number is None and not both[name].library_only for name, number in held.items()):
            return None
        full = [_indexed_scope(*one) for one in zip(scopes, items, columns, strict=True)]
        layer = template.layer("row", dict(zip(self.names, full, strict=True)))
        covered = [frozenset(leaf.key for leaf in table) for table in tables]
        numbers = tuple(number for number in held.values() if number is not None)
        return InferredRow(layer, template.function, template.arguments, numbers, (covered[0], covered[1]))

    def _shape(self, side: int, pair: LeafPair) -> tuple[int, ...]:
        return tuple(self.ports[side].leaves[(pair.left, pair.right)[side]].shape)

    def _pair_number(self, left: MappedLeaf, right: MappedLeaf) -> int | None:
        """Index of the pair that equals the row's leaf, or None."""
        number = self.pair_numbers.get((left.key, leaf_bounds(left)))
        if number is None:
            return None
        pair = self.pairs[number]
        # A row with the right names and the wrong layout would be a wrong table: a kernel called
        # like a linear layer's but stored transposed gets a row of its own, with the layout.
        views = canonical_view(left), canonical_view(right)
        if pair.right != right.key or pair.bounds[1] != leaf_bounds(right) or None in views or left.spec != right.spec:
            return None
        expected = (
            element_map(access_pattern(views[0][0]), access_pattern(views[1][0])) if views[0] and views[1] else None
        )
        shift = views[0][1] - views[1][1] if views[0] and views[1] else 0.0
        return number if expected == pair.element_map and shift == pair.shift else None

    def single_leaf_row(self, place: int) -> InferredRow | str:
        """A row of one leaf, or the reason why there is none."""
        pair = self.pairs[place]
        keys = pair.left, pair.right
        shapes = self._shape(0, pair), self._shape(1, pair)
        text = " and ".join(
            f"{name} {_describe_part(key, b, s)}"
            for name, key, b, s in zip(self.names, keys, pair.bounds, pair.shapes, strict=True)
        )
        collections = {port.collections[key] for port, key in zip(self.ports, keys, strict=True)}
        if len(collections) > 1:
            return f"{text}: a parameter in one port is state in the other"
        if pair.element_map is None:
            return f"{text}: no reshape, transpose or flip turns one into the other"
        indices = [part_index(*one) for one in zip(pair.bounds, pair.shapes, shapes, strict=True)]
        if None in indices:
            return f"{text}: no row of a layer table says that a leaf is such a part"
        found = canonical_layouts(*within_parts(pair.element_map, pair, shapes))
        if found is None:
            return f"{text}: no layout of equiv.layouts converts one into the other"
        own = {
            name: {"": one}
            for name, one in zip(self.names, add_shift_layout(found, pair.shift), strict=True)
            if one != Identity()
        }
        function = "parameter" if collections == {"params"} else "state"
        scopes = {
            name: f"{leaf_scope(key, library, function)}{index}"
            for name, key, library, index in zip(self.names, keys, self.libraries, indices, strict=True)
        }
        layer = Layer("row", function, scopes, layouts=own)
        return InferredRow(
            layer, function, (("layouts", own),) if own else (), (place,), (frozenset([keys[0]]), frozenset([keys[1]]))
        )


def _map_part(
    layer: Layer, port: Port, library: Library, keys: set[NativeKey], item: int | None, columns: Columns | None
) -> list[MappedLeaf]:
    """Map a port's leaves by one row; a part of stacked or packed leaves is mapped as if it were a whole leaf."""
    leaves = {key: struct for key, struct in port.leaves.items() if key in keys}
    if item is None and columns is None:
        return list(map_port((layer,), replace(port, leaves=leaves), library).leaves)
    shapes = {key: struct.shape if item is None else (1, *struct.shape[1:]) for key, struct in leaves.items()}
    if columns is not None:
        turns = {key: shape[-1] // columns.period if columns.period else 1 for key, shape in shapes.items() if shape}
        width = columns.stop - columns.start
        shapes = {key: (*shape[:-1], turns[key] * width) for key, shape in shapes.items() if shape}
    part = {key: jax.ShapeDtypeStruct(shape, leaves[key].dtype) for key, shape in shapes.items()}
    found = map_port((layer,), replace(port, leaves=part), library).leaves
    whole = {key: tuple(struct.shape) for key, struct in leaves.items()}
    return [replace(leaf, stack_index=item, part=columns or leaf.part, native_shape=whole[leaf.key]) for leaf in found]


def leaf_scope(key: NativeKey, library: Library, function: str) -> str:
    """The scope of a row of one leaf, `parameter` or `state`."""
    native = library.leaves[function][""]
    own = isinstance(native, NativeLeaf) and native.collection
    return key.path if own else f"{key.collection}/{key.path}"


def _indexed_scope(scope: str, item: int | None, columns: Columns | None) -> str:
    """A scope with the index in a stack, or a range of the last axis."""
    scope = scope if item is None else f"{scope}[{item}]"
    return scope if columns is None else scope + columns_index(columns)


def _describe_part(key: NativeKey, bounds: Bounds, shape: tuple[int, ...]) -> str:
    if bounds == tuple((0, size) for size in shape):
        return str(key.path)
    return f"{key.path}[{', '.join(f'{start}:{stop}' for start, stop in bounds)}]"


def _name_rows(
    found: list[InferredRow], names: tuple[str, str], libraries: tuple[Library, Library]
) -> Iterator[InferredRow]:
    """Give the rows readable, unique paths."""
    # Attribute names read best; some libraries number scopes by class.
    ranks = [library.naming_rank for library in libraries]
    sources = names if ranks[0] <= ranks[1] else names[::-1]
    paths = [row_path(*(row.layer.scopes[name] for name in sources)) for row in found]
    first = {path.partition(".")[0] for path in paths}
    # The name of the whole model, which Haiku puts before every scope, says nothing.
    if len(first) == 1 and all("." in path for path in paths):
        paths = [path.partition(".")[2] for path in paths]
    taken: set[str] = set()
    for row, path in zip(found, paths, strict=True):
        unique, number = path or "model", 2
        while unique in taken:
            unique, number = f"{path or 'model'}_{number}", number + 1
        taken.add(unique)
        yield replace(row, layer=replace(row.layer, path=unique))


def row_path(scope: str, other: str) -> str:
    """Convert a scope to a path; for a part of a packed layer the last word comes from the other library."""
    slices = r"\[[^\[\]]*[:,][^\[\]]*\]$"
    packed = re.search(slices, scope)
    paths = []
    for one in (scope, other):
        parts = re.sub(slices, "", one).replace("[", "/").replace("]", "").replace(".", "/").split("/")
        paths.append([part for part in parts if part not in ("", "~", "__layer_stack_no_per_layer")])
    return ".".join([*paths[0][:-1], *paths[1][-1:]] if packed and not re.search(slices, other) else paths[0])
