"""The leaves that a library's checkpoint must have: path, shape and dtype, and their canonical names.

The template of training is the carry of the case's own train step, as the library itself creates it: a `TrainState`,
an optimizer of the library, a state of optax. Nothing about their forms is assumed here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax

from equiv.backends.base import Port
from equiv.backends.build import build_port, call_user_code, port_spec
from equiv.backends.leaf_table import leaves_by_native_key
from equiv.backends.registry import load_library
from equiv.compat import key_text
from equiv.conversion.formats.tree_paths import Empty, TreePath, nest
from equiv.core.case import Case
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.errors import EquivError
from equiv.programs.carry import OPTIMIZER_STATE, CarryLeafParts, map_carry_leaves
from equiv.programs.trace import Tracer

Role = Literal["variable", "optimizer", "bookkeeping", "random"]
"""Parameters and state; optimizer state of optax; counts outside of it, such as `step`; the library's random state."""

OPTIMIZER = OPTIMIZER_STATE


@dataclass(frozen=True)
class Slot:
    """One leaf that a checkpoint must have.

    Attributes:
        path: its path in a file that this package writes.
        role: see `Role`.
        spec: shape and dtype there, and for a variable its collection.
        held: the canonical leaves that it holds; several where a library packs them into one.
        native: its key in the library's own tree; for optimizer state, that of its parameter.
        whole: whether it has the shape of that parameter (adafactor stores rows and columns).
    """

    path: TreePath
    role: Role
    spec: LeafSpec
    held: tuple[MappedLeaf, ...]
    native: NativeKey | None = None
    whole: bool = True


@dataclass(frozen=True)
class CheckpointTemplate:
    """All leaves that a checkpoint of one library must have.

    Attributes:
        port: name of the port.
        slots: every leaf.
        empties: nodes without leaves.
        tree: maps leaves by path to the library's own tree, as a user would save it.
    """

    port: str
    slots: tuple[Slot, ...]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


@dataclass(frozen=True)
class LibraryModel:
    """The model of one port, with its checkpoint templates.

    Attributes:
        port: as built; no array is computed.
        table: its leaf table.
        variables: the template of a checkpoint without an optimizer.
        trained: the template of training, or the error why there is none.
    """

    port: Port
    table: LeafTable
    variables: CheckpointTemplate
    trained: CheckpointTemplate | EquivError

    @property
    def training(self) -> CheckpointTemplate:
        """The template of training.

        Raises:
            EquivError: the case's train step cannot be used.
        """
        if isinstance(self.trained, EquivError):
            raise self.trained
        return self.trained

    @property
    def optimizer(self) -> tuple[Slot, ...]:
        """The slots of training beyond the model: optimizer state and counts."""
        slots = () if isinstance(self.trained, EquivError) else self.trained.slots
        return tuple(slot for slot in slots if slot.role in ("optimizer", "bookkeeping"))


def build_library_model(case: Case, name: str) -> LibraryModel:
    """Build the model of one port, and its checkpoint templates.

    Raises:
        EquivError: the builder or the layer table cannot be used.
    """
    request, _ = port_spec(case)
    built = build_port(case, name, request)
    tracer = Tracer(built.port, built.table, request, False, built.port.has_modes)
    return LibraryModel(
        built.port, built.table, _variables_template(built.port, built.table), _training_or_error(tracer)
    )


def _training_or_error(tracer: Tracer) -> CheckpointTemplate | EquivError:
    """The template of training, or the error: a train step that cannot be used is reported only where it is needed."""
    port, key = tracer.port, jax.random.key(0)
    parts = load_library(port.library).training_parts
    begin = partial(jax.eval_shape, port.init_training, dict(port.leaves), key)
    try:
        return _training_template(
            tracer, saved_form(call_user_code(port.name, "starting to train", begin), parts), parts
        )
    except EquivError as error:
        return error


def _variables_template(port: Port, table: LeafTable) -> CheckpointTemplate:
    held, library = leaves_by_native_key(table), load_library(port.library)
    slots = []
    for key, struct in port.leaves.items():
        random = port.collections[key] == "random"
        spec = LeafSpec(struct.shape, str(struct.dtype), port.collections[key])
        mapped = held.get(key) or (MappedLeaf(f"random/{key.path}", key, Identity(), spec, struct.shape),)
        slots.append(Slot(library.checkpoint_path(key), "random" if random else "variable", spec, mapped, key))

    def tree(leaves: Mapping[TreePath, Any]) -> Any:
        return nest(((*path, *library.variable_children), leaf) for path, leaf in leaves.items())

    return CheckpointTemplate(port.name, tuple(slots), {}, tree)


def saved_form(carry: Any, parts: Sequence[str] = ()) -> Any:
    """A carry as a user would save it: a train state unchanged, `(graph, states)` as the states by name.

    Args:
        carry: the carry of training.
        parts: `training_parts` of the library.
    """
    if isinstance(carry, dict) and len(carry) == 1 and hasattr(state := next(iter(carry.values())), "apply_gradients"):
        return state
    if parts and isinstance(carry, tuple) and len(carry) == 2:
        states = carry[1]
        return {name: states[index] for index, name in enumerate(parts) if index in states}
    return carry


def _training_template(tracer: Tracer, root: Any, parts: Sequence[str]) -> CheckpointTemplate:
    flat, structure = jax.tree_util.tree_flatten_with_path(root)
    slots = tuple(
        _slot(tracer, _text_path(path), leaf, held)
        for (path, leaf), held in zip(flat, map_carry_leaves(tracer, root), strict=True)
    )
    kept = {leaf.name for slot in slots for leaf in slot.held}
    if lost := [leaf.name for leaf in tracer.table.leaves if leaf.name not in kept]:
        raise EquivError(
            f"{tracer.port.name}: the carry of the case's train step does not hold {lost[0]} "
            f"({len(lost)} of {len(tracer.table.leaves)} leaves).",
            fix="Add it to the carry, or a checkpoint of training loses it.",
            port=tracer.port.name,
        )
    with_empties = jax.tree_util.tree_flatten_with_path(root, is_leaf=_is_empty)[0]
    empties = {_text_path(path): Empty(none=node is None) for path, node in with_empties if _is_empty(node)}
    return CheckpointTemplate(
        tracer.port.name, slots, empties, partial(_unflatten_native, structure, parts, [path for path, _ in flat])
    )


def _unflatten_native(
    structure: Any, parts: Sequence[str], paths: Sequence[tuple[Any, ...]], leaves: Mapping[TreePath, Any]
) -> Any:
    """The library's own tree with these leaves; orbax distinguishes tuples and dicts.

    States that have names are saved as dicts (orbax-checkpoint 0.12.8), from which a leaf may be missing; elsewhere a
    missing leaf is None.
    """
    if parts and structure.node_data()[0] is dict and set(structure.node_data()[1]) <= set(parts):
        whole = {_text_path(path): tuple(map(key_text, path)) for path in paths}
        return nest((whole[path], leaf) for path, leaf in leaves.items())
    return jax.tree.unflatten(structure, [leaves.get(_text_path(path)) for path in paths])


def _is_empty(node: Any) -> bool:
    structure = jax.tree.structure(node)
    return structure.num_leaves == 0 and structure.num_nodes == 1


def _text_path(path: tuple[Any, ...]) -> TreePath:
    """A pytree path as text keys, without the attribute `value` of an NNX variable."""
    if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(map(key_text, path))


def _slot(tracer: Tracer, path: TreePath, struct: Any, parts: CarryLeafParts) -> Slot:
    spec, held = LeafSpec(tuple(struct.shape), str(struct.dtype)), tuple(part.mapped for part in parts)
    native = next((leaf.key for leaf in held if leaf.key in tracer.port.leaves), None)
    if parts[0].name.kind == "random":
        native = next(key for key in tracer.port.leaves if key.path == parts[0].name.path)
        return Slot(path, "random", LeafSpec(spec.shape, spec.dtype, "random"), held, native)
    if OPTIMIZER in path:
        whole = native is None or tuple(tracer.port.leaves[native].shape) == spec.shape
        return Slot(path, "optimizer", spec, held, native, whole)
    if native is None:
        return Slot(path, "bookkeeping", spec, held)
    return Slot(path, "variable", LeafSpec(spec.shape, spec.dtype, tracer.port.collections[native]), held, native)
