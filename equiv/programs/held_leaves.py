"""A port without the leaves that another port lacks: each is held at a value, and is no input of any program.

In training too: a step is given the value, and what it makes of the leaf is dropped. What an optimizer keeps for it
goes on; nothing that both ports have depends on that, unless the optimizer mixes its parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import Leaves, Port, PortSpec, UserProgram, pytree_path
from equiv.backends.build import MappedPort, call_user_code
from equiv.backends.leaf_table import to_float64_dtype
from equiv.compat import jit_with_options
from equiv.core.leaves import HeldValue, MappedLeaf, NativeKey
from equiv.core.scope import HeldLeaf
from equiv.errors import CaseError
from equiv.programs.carry import choose_carry_variables, fit_carry_paths
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.held_parts import PartlyHeld, find_partly_held, open_port, own_leaf, part_text
from equiv.programs.trace import Tracer


def hold_leaves(mapped: MappedPort, request: PortSpec) -> MappedPort:
    """Hold the leaves that the layer table gives a value, and leave them out of port and table.

    Raises:
        CaseError: what one is initialised to is drawn.
        PortError: the port cannot be initialised.
    """
    held = [leaf for leaf in mapped.table.leaves if leaf.held is not None]
    if not held:
        return mapped
    packed = find_partly_held(mapped.table)
    whole = [leaf for leaf in held if leaf.key not in packed]
    port, arrays = mapped.port, held_arrays(mapped, [(leaf, leaf.held) for leaf in whole if leaf.held is not None])
    parts = {key: PartlyHeld(leaves, _held_blocks(mapped, leaves)) for key, leaves in packed.items()}
    free = [leaf for leaf in mapped.table.leaves if leaf.held is None]
    table = replace(mapped.table, leaves=tuple(own_leaf(leaf) if leaf.key in parts else leaf for leaf in free))
    values = tuple(
        HeldLeaf(
            port.name,
            leaf.name,
            describe_value(parts[leaf.key].arrays[leaf.name] if leaf.key in parts else arrays[leaf.key]),
            leaf.spec.collection == "params",
        )
        for leaf in held
    )
    binding = _Binding(Tracer(port, mapped.table, request, False, port.has_modes), arrays, parts)
    return MappedPort(binding.port(), table, values)


def _held_blocks(mapped: MappedPort, leaves: Sequence[MappedLeaf]) -> dict[str, np.ndarray]:
    """Canonical name to block, of the parts of a native leaf that are held.

    Raises:
        CaseError: what one is initialised to is drawn.
        PortError: the port cannot be initialised.
    """
    key, found = leaves[0].key, dict[str, np.ndarray]()
    initial = initial_arrays(mapped.port, [key])[key] if any(leaf.held == "initial" for leaf in leaves) else None
    for leaf in leaves:
        if leaf.held == "initial":
            if initial is None:
                raise _drawn_error(mapped.port, leaf)
            found[leaf.name] = leaf.take_block(initial)
        elif leaf.held is not None:
            canonical = np.full(leaf.spec.shape, leaf.held, mapped.port.leaves[key].dtype)
            found[leaf.name] = np.asarray(leaf.layout.to_native(canonical, leaf.block_shape))
    return found


def _drawn_error(port: Port, leaf: MappedLeaf) -> CaseError:
    return CaseError(
        f"{port.name}: {leaf.name} cannot be held at what {port.library} initialises it to, which is drawn.",
        fix=f"Give a number: only({port.name!r}, {leaf.name!r}, value=0).",
        port=port.name,
        leaf=leaf.name,
    )


def held_arrays(mapped: MappedPort, values: Sequence[tuple[MappedLeaf, HeldValue]]) -> dict[NativeKey, np.ndarray]:
    """Native leaf to what it is held at, in its own dtype and layout.

    Raises:
        CaseError: a leaf is a part of a native leaf, or what it is initialised to is drawn.
        PortError: the port cannot be initialised.
    """
    name = mapped.port.name
    for leaf, _ in values:
        if leaf.region is not None:
            raise CaseError(
                f"{name}: {leaf.name} is a part of {leaf.key}, and a part cannot be held at a value.",
                fix=f"Remove the row only({name!r}, {leaf.name!r}).",
                port=name,
                leaf=leaf.name,
            )
    asked = [leaf for leaf, value in values if value == "initial"]
    initial = initial_arrays(mapped.port, [leaf.key for leaf in asked])
    for leaf in asked:
        if initial[leaf.key] is None:
            raise _drawn_error(mapped.port, leaf)
    found = {leaf.key: array for leaf in asked if (array := initial[leaf.key]) is not None}
    for leaf, value in values:
        if value != "initial":
            canonical = np.full(leaf.spec.shape, value, mapped.port.leaves[leaf.key].dtype)
            found[leaf.key] = np.asarray(leaf.to_block(canonical))
    return found


def initial_arrays(port: Port, keys: Sequence[NativeKey]) -> dict[NativeKey, np.ndarray | None]:
    """What a library initialises leaves to; None where that is drawn."""
    if not keys:
        return {}

    def make(key: Any) -> list[Any]:
        leaves = port.init(key)
        return [leaves[one] for one in keys]

    def run() -> list[list[np.ndarray]]:
        compiled = jit_with_options(make, FAST_COMPILE_OPTIONS)
        return [[np.asarray(one) for one in compiled(jax.random.key(seed))] for seed in (0, 1)]

    first, other = call_user_code(port.name, "initialising", run)
    return {
        key: one if np.array_equal(one, two, equal_nan=one.dtype.kind == "f") else None
        for key, one, two in zip(keys, first, other, strict=True)
    }


def describe_value(array: np.ndarray) -> str:
    """A value in words: its number, where all elements are the same."""
    numbers = np.unique(np.asarray(array, "float64")) if array.size else np.zeros(1)
    return f"{numbers[0]:.6g}" if numbers.size == 1 else "what its library initialises it to"


@dataclass(frozen=True)
class HeldCarry:
    """A carry of training without the variables that are held.

    Attributes:
        paths: of what is left, as in the carry.
        leaves: what is left.
        structure: of the whole carry.
        places: native leaf to its place in the whole carry.
        packed: native leaf of which parts are held, a place of it or of what an optimizer keeps for it, whether it is
            the variable itself, and its dtype.
    """

    paths: tuple[str, ...]
    leaves: tuple[Any, ...]
    structure: Any
    places: tuple[tuple[NativeKey, int], ...]
    packed: tuple[tuple[NativeKey, int, bool, str], ...] = ()


def _flatten(carry: HeldCarry) -> tuple[list[tuple[Any, Any]], Any]:
    keys = map(jax.tree_util.DictKey, carry.paths)
    return list(zip(keys, carry.leaves, strict=True)), (carry.paths, carry.structure, carry.places, carry.packed)


def _unflatten(rest: Any, leaves: Any) -> HeldCarry:
    paths, *others = rest
    return HeldCarry(paths, tuple(leaves), *others)


jax.tree_util.register_pytree_with_keys(HeldCarry, _flatten, _unflatten)


@dataclass(frozen=True)
class _Binding:
    """A port, and what some of its leaves, and parts of leaves, are held at."""

    tracer: Tracer
    arrays: Mapping[NativeKey, np.ndarray]
    parts: Mapping[NativeKey, PartlyHeld]

    def port(self) -> Port:
        """The port without these leaves."""
        own = self.tracer.port
        programs = own.user_programs

        def user_programs(native: Leaves, batch: Mapping[str, Any], key: Any) -> tuple[UserProgram, ...]:
            assert programs is not None
            return programs(self.whole(native), batch, key)

        return replace(
            open_port(own, self.arrays, self.parts),
            apply=self.apply,
            init_training=lambda native, key: self.drop(own.init_training(self.whole(native), key)),
            step=self.step,
            init=lambda key: self.free(own.init(key)),
            user_programs=None if programs is None else user_programs,
        )

    def whole(self, native: Leaves) -> Leaves:
        """All leaves of the port: those that are given, and those that are held."""
        wide = any(str(leaf.dtype) != self.dtypes[key] for key, leaf in native.items())

        def fill(array: np.ndarray) -> Any:
            return self.value(array, wide)

        found = {}
        for key in self.tracer.port.leaves:
            if key in self.parts:
                found[key] = self.parts[key].whole(native, fill)
            else:
                found[key] = native[key] if key in native else fill(self.arrays[key])
        return found

    @cached_property
    def dtypes(self) -> dict[NativeKey, str]:
        """The dtypes of all leaves, and of parts that are leaves of their own."""
        own = self.tracer.port.leaves
        opened = {key: one for name, parts in self.parts.items() for key, one in parts.structs(own[name].dtype).items()}
        return {key: str(struct.dtype) for key, struct in (*own.items(), *opened.items())}

    def free(self, leaves: Leaves) -> Leaves:
        """Leave out what is held; the other parts of a leaf are leaves of their own."""
        found: Leaves = {}
        for key, leaf in leaves.items():
            if key in self.parts:
                found |= self.parts[key].split(leaf)
            elif key not in self.arrays:
                found[key] = leaf
        return found

    def value(self, array: np.ndarray, wide: bool) -> Any:
        """What a leaf or part is held at; in a float64 run as float64, as far as its own dtype has it."""
        dtype = to_float64_dtype(str(array.dtype)) if wide else array.dtype
        if array.size and (array == array.flat[0]).all():
            # One number repeated, which provers and compilers know, where an array would be any.
            return jnp.full(array.shape, array.flat[0].item(), dtype)
        return jnp.asarray(array, dtype)

    def apply(
        self, native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any
    ) -> tuple[Any, Leaves]:
        """Call a method."""
        outputs, after = self.tracer.port.apply(self.whole(native), method, arguments, train, key)
        return outputs, self.free(after)

    def step(self, carry: HeldCarry, batch: Mapping[str, Any], key: Any) -> tuple[HeldCarry, Any]:
        """Make a train step from where the leaves have their values."""
        wide = any(str(getattr(leaf, "dtype", "")) == "float64" for leaf in carry.leaves)
        held = {place: self.value(self.arrays[key], wide) for key, place in carry.places}
        packed = {place: (self.parts[key], variable, dtype) for key, place, variable, dtype in carry.packed}
        left = iter(carry.leaves)

        def leaf_at(at: int) -> Any:
            if at in held:
                return held[at]
            if at not in packed:
                return next(left)
            one, variable, dtype = packed[at]
            # What an optimizer keeps for a part that is held starts every step from 0, as the part from its value.
            return one.join(
                [
                    next(left)
                    if leaf.name not in one.arrays
                    else self.value(one.arrays[leaf.name], wide)
                    if variable
                    else jnp.zeros(leaf.block_shape, dtype)
                    for leaf in one.leaves
                ]
            )

        leaves = [leaf_at(at) for at in range(carry.structure.num_leaves)]
        after, outputs = self.tracer.port.step(jax.tree.unflatten(carry.structure, leaves), batch, key)
        return self.drop(after), outputs

    def drop(self, carry: Any) -> HeldCarry:
        """Leave the held variables out of a carry; what else is kept for them has names of its own."""
        flat, structure = jax.tree_util.tree_flatten_with_path(carry)
        paths = fit_carry_paths(self.tracer, carry)
        variables = choose_carry_variables(self.tracer, paths)
        kept: list[tuple[str, Any]] = []
        places: list[tuple[NativeKey, int]] = []
        packed: list[tuple[NativeKey, int, bool, str]] = []
        for at, ((where, leaf), path) in enumerate(zip(flat, paths, strict=True)):
            if (
                path.key is not None
                and path.key in self.parts
                and path.shape == tuple(self.tracer.port.leaves[path.key].shape)
            ):
                one = self.parts[path.key]
                kept += [
                    (pytree_path(where) + part_text(part), block)
                    for part, block in zip(one.leaves, one.take_apart(leaf), strict=True)
                    if part.name not in one.arrays
                ]
                packed.append((path.key, at, at in variables, str(leaf.dtype)))
            elif path.key not in self.arrays and path.key not in self.parts:
                kept.append((pytree_path(where), leaf))
            elif path.key is not None and at in variables:
                places.append((path.key, at))
            else:
                kept.append((_own_name(path.words, path.of_optimizer), leaf))
        names, leaves = tuple(path for path, _ in kept), tuple(leaf for _, leaf in kept)
        return HeldCarry(names, leaves, structure, tuple(places), tuple(packed))


def _own_name(words: Sequence[str], of_optimizer: bool) -> str:
    """A path with which that of no leaf ends, though the path of the held one does."""
    name = f"held {'.'.join(words)}"
    return f"opt_state/{name}" if of_optimizer else name
