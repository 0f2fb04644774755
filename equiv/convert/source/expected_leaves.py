"""What a library keeps of a model: every leaf of a checkpoint as it must be, with what it means in any other library.

The template of training is the carry of the case's own train step, as the library itself makes it: a `TrainState`, an
`nnx.Optimizer`, a state of optax. Nothing about their forms is known here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax

from equiv.backends.base import Port
from equiv.backends.build import build_port, guarded, request_of
from equiv.backends.leaf_table import by_key
from equiv.convert.formats.tree_paths import Empty, TreePath, nested
from equiv.core.case import Case
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.errors import EquivError
from equiv.programs.trace import Tracer
from equiv.programs.train_step import Held, carry_leaves

Role = Literal["variable", "optimizer", "bookkeeping", "random"]
"""Parameters and state; what optax keeps; counts beside it, such as `step`; the library's own random state."""


OPTIMIZER = "opt_state"


NNX = ("model", "optimizer")
"""Under which names a model of NNX and its optimizer lie in one checkpoint."""


@dataclass(frozen=True)
class Slot:
    """One leaf of a checkpoint as it must be.

    Attributes:
        path: in a file that this package writes.
        role: see `Role`.
        spec: shape and dtype there, and for a variable its collection.
        held: what it holds by canonical name; several where a library packs them into one.
        native: its place in the library's own tree; for a leaf of the optimizer, of the parameter it belongs to.
        whole: whether it has the shape of that parameter (adafactor keeps rows and columns).
    """

    path: TreePath
    role: Role
    spec: LeafSpec
    held: Held
    native: NativeKey | None = None
    whole: bool = True


@dataclass(frozen=True)
class Template:
    """A checkpoint as one library keeps it.

    Attributes:
        backend: the library.
        slots: every leaf.
        empties: nodes without leaves.
        tree: leaves by path to the library's own tree, as a user would save it.
    """

    backend: str
    slots: tuple[Slot, ...]
    empties: Mapping[TreePath, Empty]
    tree: Callable[[Mapping[TreePath, Any]], Any]


@dataclass(frozen=True)
class Model:
    """One library's side of a case.

    Attributes:
        port: as built; nothing is computed.
        table: its leaf table.
        variables: the template of a checkpoint without an optimizer.
        trained: the template of training, or why there is none.
    """

    port: Port
    table: LeafTable
    variables: Template
    trained: Template | EquivError

    @property
    def training(self) -> Template:
        """The template of training.

        Raises:
            EquivError: the case's train step cannot be used.
        """
        if isinstance(self.trained, EquivError):
            raise self.trained
        return self.trained

    @property
    def optimizer(self) -> tuple[Slot, ...]:
        """What is kept beside the model in training."""
        slots = () if isinstance(self.trained, EquivError) else self.trained.slots
        return tuple(slot for slot in slots if slot.role in ("optimizer", "bookkeeping"))


def model_of(case: Case, backend: str) -> Model:
    """Build one library's side of a case.

    Raises:
        EquivError: the builder or the layer table cannot be used.
    """
    request, _ = request_of(case)
    built = build_port(case, backend, request)
    tracer = Tracer(built.port, built.table, request, False, built.port.modes)
    return Model(built.port, built.table, _variables(built.port, built.table), _trained(tracer))


def _trained(tracer: Tracer) -> Template | EquivError:
    """The template of training; a train step that cannot be used is only told where it is needed."""
    port, key = tracer.port, jax.random.key(0)
    begin = partial(jax.eval_shape, port.begin, dict(port.leaves), key)
    try:
        return _training(tracer, rooted(guarded(port.backend, "beginning to train", begin)))
    except EquivError as error:
        return error


def _variables(port: Port, table: LeafTable) -> Template:
    held = by_key(table)
    slots = []
    for key, struct in port.leaves.items():
        random = port.collections[key] == "random"
        spec = LeafSpec(struct.shape, str(struct.dtype), port.collections[key])
        mapped = held.get(key) or (MappedLeaf(f"random/{key.path}", key, Identity(), spec, struct.shape),)
        slots.append(Slot(_path(port, key), "random" if random else "variable", spec, mapped, key))
    # NNX saves a variable as a node of its own (flax 0.12.8: `kernel/value`).
    below = ("value",) if port.backend == "nnx" else ()

    def tree(leaves: Mapping[TreePath, Any]) -> Any:
        return nested(((*path, *below), leaf) for path, leaf in leaves.items())

    return Template(port.backend, tuple(slots), {}, tree)


def _path(port: Port, key: NativeKey) -> TreePath:
    if port.backend == "haiku":
        module, _, name = key.path.rpartition("/")
        return key.collection, module, name
    if port.backend == "nnx":
        return tuple(key.path.split("."))
    return key.collection, *key.path.split("/")


def rooted(carry: Any) -> Any:
    """A carry as a user would save it: a train state as it is, a model and its optimizer by these names."""
    if isinstance(carry, dict) and len(carry) == 1 and hasattr(state := next(iter(carry.values())), "apply_gradients"):
        return state
    if isinstance(carry, tuple) and len(carry) == 2:
        states = carry[1]  # of `nnx.split((model, optimizer))`
        return {name: states[index] for index, name in enumerate(NNX) if index in states}
    return carry


def _training(tracer: Tracer, root: Any) -> Template:
    flat, structure = jax.tree_util.tree_flatten_with_path(root)
    slots = tuple(
        _slot(tracer, _keys(path), leaf, held)
        for (path, leaf), held in zip(flat, carry_leaves(tracer, root), strict=True)
    )
    kept = {leaf.name for slot in slots for leaf in slot.held}
    if lost := [leaf.name for leaf in tracer.table.leaves if leaf.name not in kept]:
        raise EquivError(
            f"{tracer.port.backend}: what the case's train step carries does not hold {lost[0]} "
            f"({len(lost)} of {len(tracer.table.leaves)} leaves). Carry it, or a checkpoint of training loses it."
        )
    with_empties = jax.tree_util.tree_flatten_with_path(root, is_leaf=_is_empty)[0]
    empties = {_keys(path): Empty(none=node is None) for path, node in with_empties if _is_empty(node)}
    return Template(tracer.port.backend, slots, empties, partial(_tree, structure, [path for path, _ in flat]))


def _tree(structure: Any, paths: Sequence[tuple[Any, ...]], leaves: Mapping[TreePath, Any]) -> Any:
    """The library's own tree with these leaves; orbax keeps tuples and dicts apart.

    States of NNX are saved as dicts (orbax-checkpoint 0.12.8), from which a leaf may be missing; elsewhere None stands
    for it.
    """
    if structure.node_data()[0] is dict and set(structure.node_data()[1]) <= set(NNX):
        whole = {_keys(path): tuple(jax.tree_util.keystr((key,), simple=True) for key in path) for path in paths}
        return nested((whole[path], leaf) for path, leaf in leaves.items())
    return jax.tree.unflatten(structure, [leaves.get(_keys(path)) for path in paths])


def _is_empty(node: Any) -> bool:
    structure = jax.tree.structure(node)
    return structure.num_leaves == 0 and structure.num_nodes == 1


def _keys(path: tuple[Any, ...]) -> TreePath:
    """A pytree path as keys, without the attribute `value` of an NNX variable."""
    if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _slot(tracer: Tracer, path: TreePath, struct: Any, held: Held) -> Slot:
    spec = LeafSpec(tuple(struct.shape), str(struct.dtype))
    native = next((leaf.key for leaf in held if leaf.key in tracer.port.leaves), None)
    if held[0].name.startswith("random/"):
        name = held[0].name.removeprefix("random/")
        native = next(key for key in tracer.port.leaves if key.path == name)
        return Slot(path, "random", LeafSpec(spec.shape, spec.dtype, "random"), held, native)
    if OPTIMIZER in path:
        whole = native is None or tuple(tracer.port.leaves[native].shape) == spec.shape
        return Slot(path, "optimizer", spec, held, native, whole)
    if native is None:
        return Slot(path, "bookkeeping", spec, held)
    return Slot(path, "variable", LeafSpec(spec.shape, spec.dtype, tracer.port.collections[native]), held, native)
