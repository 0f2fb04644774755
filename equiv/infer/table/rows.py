"""Pairs of leaves as rows of a layer table: the kinds that `equiv` knows first, then one parameter at a time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import jax

from equiv import backends
from equiv.backends.base import Port
from equiv.backends.leaf_table import map_port
from equiv.core.case import Layer
from equiv.core.layouts import Identity
from equiv.core.leaves import MappedLeaf, Native, NativeKey
from equiv.core.packing import Columns
from equiv.errors import EquivError
from equiv.infer.dataflow.strided_views import form
from equiv.infer.matching.proposal import Bounds, Pair, Proposal
from equiv.infer.matching.relations import layouts, relation
from equiv.infer.table.leaf_views import bounds_of, columns_of, item_of, seen, shifted, without_columns, without_item
from equiv.infer.table.row_templates import Template, fits, natives_of, scopes_of, templates


@dataclass(frozen=True)
class Row:
    """One row of a layer table, and the call that makes it.

    Attributes:
        layer: the row.
        function: of `equiv.core.layers`.
        arguments: beside path and scopes.
        pairs: places of the pairs that it holds.
        keys: native leaves that it covers, in either port.
    """

    layer: Layer
    function: str
    arguments: tuple[tuple[str, Any], ...] = ()
    pairs: tuple[int, ...] = ()
    keys: tuple[frozenset[NativeKey], frozenset[NativeKey]] = (frozenset(), frozenset())


def rows(proposal: Proposal) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The layer table of a proposal, and what it cannot say."""
    names = proposal.ports[0].backend, proposal.ports[1].backend
    modules = backends.load(names[0]), backends.load(names[1])
    finder = Finder(proposal, names, modules)
    found: list[Row] = []
    done: set[int] = set()
    problems: list[str] = []
    for place in range(len(proposal.pairs)):
        if place in done:
            continue
        row = finder.kind(place) or finder.single(place)
        if isinstance(row, str):
            problems.append(row)
            continue
        found.append(row)
        done |= set(row.pairs)
    return tuple(_named(_modules(found, names), names)), tuple(problems)


def _modules(found: list[Row], names: tuple[str, str]) -> list[Row]:
    """Parameters of one module, called alike in both ports, as one row."""
    groups: dict[object, list[Row]] = {}
    for number, row in enumerate(found):
        scopes = [re.fullmatch(r"(?:(.*)[./])?([^./\[\]]+)", row.layer.scopes[name]) for name in names]
        leaves = {scope[2] for scope in scopes if scope}
        alone = row.function != "parameter" or row.arguments or len(leaves) != 1 or None in scopes
        key = number if alone else tuple(scope[1] or "" for scope in scopes if scope)
        groups.setdefault(key, []).append(row)
    return [some[0] if len(some) == 1 else _module(key, some, names) for key, some in groups.items()]


def _module(scopes: Any, some: list[Row], names: tuple[str, str]) -> Row:
    leaves = tuple(re.split(r"[./]", row.layer.scopes[names[0]])[-1] for row in some)
    layer = Layer("row", "module", dict(zip(names, scopes, strict=True)), leaves)
    keys = [frozenset().union(*(row.keys[side] for row in some)) for side in (0, 1)]
    return Row(layer, "module", (), tuple(number for row in some for number in row.pairs), (keys[0], keys[1]))


class Finder:
    """Looks for the row that a pair belongs to."""

    def __init__(self, proposal: Proposal, names: tuple[str, str], modules: tuple[ModuleType, ModuleType]) -> None:
        self.pairs, self.ports, self.names, self.modules = proposal.pairs, proposal.ports, names, modules
        self.alone = {one.key for one in proposal.left if not one.dead}
        self.places = {(pair.left, pair.bounds[0]): number for number, pair in enumerate(proposal.pairs)}
        self.templates = [
            (template, tuple(natives_of(module, template) for module in modules)) for template in templates(names)
        ]

    def kind(self, place: int) -> Row | None:
        """The largest row of a known kind that says of its leaves what the proposal says."""
        pair = self.pairs[place]
        for template, natives in self.templates:
            scopes = [
                list(scopes_of(key, native, module))
                for key, native, module in zip((pair.left, pair.right), natives, self.modules, strict=True)
            ]
            for left in scopes[0]:
                for right in scopes[1]:
                    if row := self._row(template, natives, (left, right), pair):
                        return row
        return None

    def _row(
        self, template: Template, natives: tuple[list[Native], ...], scopes: tuple[str, str], pair: Pair
    ) -> Row | None:
        items = tuple(item_of(bounds, self._shape(side, pair)) for side, bounds in enumerate(pair.bounds))
        columns = tuple(columns_of(bounds, self._shape(side, pair)) for side, bounds in enumerate(pair.bounds))
        tables = []
        for side, scope in enumerate(scopes):
            keys = {self.modules[side].native_key(one, scope) for one in natives[side]} & set(self.ports[side].leaves)
            layer = template.layer("row", {self.names[side]: scope if items[side] is None else f"{scope}[0]"})
            try:
                tables.append(_table(layer, self.ports[side], self.modules[side], keys, items[side], columns[side]))
            except EquivError:
                return None
        ours, theirs = ({leaf.name: leaf for leaf in table if not leaf.own} for table in tables)
        both = {name: leaf for name, leaf in ours.items() if name in theirs}
        # What only one of them has must be a leaf without a counterpart: running the case says so of the layer.
        single = {leaf.key for name, leaf in (ours | theirs).items() if name not in both}
        if not both or not single <= self.alone or not fits(template, both, scopes, pair):
            return None
        held = [self._held(ours[name], theirs[name]) for name in both]
        if any(number is None for number in held):
            return None
        full = [_indexed(*one) for one in zip(scopes, items, columns, strict=True)]
        layer = template.layer("row", dict(zip(self.names, full, strict=True)))
        covered = [frozenset(leaf.key for leaf in table) for table in tables]
        numbers = tuple(number for number in held if number is not None)
        return Row(layer, template.function, template.arguments, numbers, (covered[0], covered[1]))

    def _shape(self, side: int, pair: Pair) -> tuple[int, ...]:
        return tuple(self.ports[side].leaves[(pair.left, pair.right)[side]].shape)

    def _held(self, left: MappedLeaf, right: MappedLeaf) -> int | None:
        """The pair that a row's leaf is, if it says the same of it."""
        number = self.places.get((left.key, bounds_of(left)))
        if number is None:
            return None
        pair = self.pairs[number]
        views = seen(left), seen(right)
        if pair.right != right.key or pair.bounds[1] != bounds_of(right) or None in views or left.spec != right.spec:
            return None
        said = relation(form(views[0][0]), form(views[1][0])) if views[0] and views[1] else None
        shift = views[0][1] - views[1][1] if views[0] and views[1] else 0.0
        return number if said == pair.relation and shift == pair.shift else None

    def single(self, place: int) -> Row | str:
        """A row of one leaf, or why there can be none."""
        pair = self.pairs[place]
        keys = pair.left, pair.right
        shapes = self._shape(0, pair), self._shape(1, pair)
        items = tuple(item_of(bounds, shape) for bounds, shape in zip(pair.bounds, shapes, strict=True))
        told = " and ".join(
            f"{name} {_part(key, b, s)}" for name, key, b, s in zip(self.names, keys, pair.bounds, shapes, strict=True)
        )
        columns = tuple(columns_of(bounds, shape) for bounds, shape in zip(pair.bounds, shapes, strict=True))
        for bounds, shape, item, some in zip(pair.bounds, shapes, items, columns, strict=True):
            if item is None and some is None and bounds != tuple((0, size) for size in shape):
                return f"{told}: no row of a layer table says that a leaf is such a part of another"
        collections = {port.collections[key] for port, key in zip(self.ports, keys, strict=True)}
        if len(collections) > 1:
            return f"{told}: a parameter in one port is state in the other"
        if pair.relation is None:
            return f"{told}: no reshape, transpose or flip makes one of the other"
        found = layouts(*without_columns(*without_item(pair.relation, shapes, items), columns))
        if found is None:
            return f"{told}: the layouts of equiv.core.layouts cannot say how one lies in the other"
        own = {
            name: {"": one}
            for name, one in zip(self.names, shifted(found, pair.shift), strict=True)
            if one != Identity()
        }
        function = "parameter" if collections == {"params"} else "state"
        scopes = {
            name: _indexed(_scope(key, module, function), item, some)
            for name, key, module, item, some in zip(self.names, keys, self.modules, items, columns, strict=True)
        }
        layer = Layer("row", function, scopes, layouts=own)
        return Row(
            layer, function, (("layouts", own),) if own else (), (place,), (frozenset([keys[0]]), frozenset([keys[1]]))
        )


def _table(
    layer: Layer, port: Port, module: ModuleType, keys: set[NativeKey], item: int | None, columns: Columns | None
) -> list[MappedLeaf]:
    """What a row says of a port; of stacked or packed leaves it has a part, looked at as if there were no other."""
    leaves = {key: struct for key, struct in port.leaves.items() if key in keys}
    if item is None and columns is None:
        return list(map_port((layer,), replace(port, leaves=leaves), module).leaves)
    shapes = {key: struct.shape if item is None else (1, *struct.shape[1:]) for key, struct in leaves.items()}
    if columns is not None:
        shapes = {key: (*shape[:-1], columns.stop - columns.start) for key, shape in shapes.items() if shape}
    part = {key: jax.ShapeDtypeStruct(shape, leaves[key].dtype) for key, shape in shapes.items()}
    found = map_port((layer,), replace(port, leaves=part), module).leaves
    whole = {key: tuple(struct.shape) for key, struct in leaves.items()}
    return [replace(leaf, item=item, part=columns or leaf.part, native_shape=whole[leaf.key]) for leaf in found]


def _scope(key: NativeKey, module: ModuleType, function: str) -> str:
    native = module.LEAVES[function][""]
    return key.path if native.collection else f"{key.collection}/{key.path}"


def _indexed(scope: str, item: int | None, columns: Columns | None) -> str:
    """A scope with the index of a stack, or a run of the last axis."""
    scope = scope if item is None else f"{scope}[{item}]"
    return scope if columns is None else f"{scope}[..., {columns.start}:{columns.stop}]"


def _part(key: NativeKey, bounds: Bounds, shape: tuple[int, ...]) -> str:
    if bounds == tuple((0, size) for size in shape):
        return str(key.path)
    return f"{key.path}[{', '.join(f'{start}:{stop}' for start, stop in bounds)}]"


def _named(found: list[Row], names: tuple[str, str]) -> Iterator[Row]:
    """The rows under the paths that a person would give them."""
    sources = sorted(names, key=("nnx", "haiku", "linen").index)
    paths = [_path(*(row.layer.scopes[name] for name in sources)) for row in found]
    first = {path.partition(".")[0] for path in paths}
    if len(first) == 1 and all("." in path for path in paths):
        paths = [path.partition(".")[2] for path in paths]
    taken: set[str] = set()
    for row, path in zip(found, paths, strict=True):
        unique, number = path or "model", 2
        while unique in taken:
            unique, number = f"{path or 'model'}_{number}", number + 1
        taken.add(unique)
        yield replace(row, layer=replace(row.layer, path=unique))


def _path(scope: str, other: str) -> str:
    """A scope as a path; of a part of a packed layer the last word is the other library's."""
    packed = "[..." in scope
    paths = []
    for one in (scope, other):
        parts = re.sub(r"\[\.\.\..*\]", "", one).replace("[", "/").replace("]", "").replace(".", "/").split("/")
        paths.append([part for part in parts if part not in ("", "~", "__layer_stack_no_per_layer")])
    return ".".join([*paths[0][:-1], *paths[1][-1:]] if packed and "[..." not in other else paths[0])
