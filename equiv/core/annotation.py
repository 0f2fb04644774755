"""What a library keeps of the sharding of a leaf, names of its axes, and what these are on the axes of a mesh."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Axes = str | tuple[str, ...] | None
"""One axis of a mesh, or several, the slowest first; None: none, every device has the whole axis of the leaf."""

Rules = Sequence[tuple[str, Axes]]
"""Logical axis and axes of a mesh; of several rules for one name the first counts whose axes are free."""


@dataclass(frozen=True)
class Annotation:
    """What a library keeps of the sharding of one leaf.

    Attributes:
        names: of its axes, from the first on, logical ones or axes of a mesh; the last axes may have none.
        rules: its own rules, which come before those of the case.
    """

    names: tuple[Axes, ...]
    rules: tuple[tuple[str, Axes], ...] = ()

    def __str__(self) -> str:
        return names_text(self.names)


def resolve_names(annotation: Annotation, rules: Rules, mesh_axes: Sequence[str] | None = None) -> tuple[Axes, ...]:
    """The axes of a mesh that the axes of a leaf are on.

    As `flax.linen.logical_to_mesh_axes` does (flax 0.12.8, `linen/spmd.py`): rules in order, and no axis of the mesh
    twice. A name without a rule is the axis of the mesh that is called so, else that axis is not sharded.

    Args:
        annotation: what the library keeps.
        rules: those of the case.
        mesh_axes: names of the axes of the mesh; None: of a mesh that has every axis that is named.
    """
    names = annotation.names
    ruled = [(name, as_axes(axes)) for name, axes in (*annotation.rules, *rules) if name in names]
    logical = {name for name, _ in ruled}
    found = [
        () if name in logical else tuple(one for one in as_axes(name) if mesh_axes is None or one in mesh_axes)
        for name in names
    ]
    done = set[str]()
    for name, axes in ruled:
        taken = {axis for one in found for axis in one}
        if name not in done and not taken.intersection(axes):
            found[names.index(name)] = axes
            done.add(name)
    return tuple(None if not axes else axes[0] if len(axes) == 1 else axes for axes in found)


def unruled_names(annotation: Annotation, rules: Rules, mesh_axes: Sequence[str]) -> tuple[str, ...]:
    """The names of an annotation that are no axis of the mesh and have no rule; arguments as of `resolve_names`."""
    known = {*mesh_axes, *(name for name, _ in (*annotation.rules, *rules))}
    return tuple(one for name in annotation.names for one in as_axes(name) if one not in known)


def mesh_name(sizes: Mapping[str, int]) -> str:
    """A mesh in words: `data 2 x model 4`."""
    return " x ".join(f"{axis} {size}" for axis, size in sizes.items())


def as_axes(axes: Axes) -> tuple[str, ...]:
    """Axes as a tuple."""
    return () if axes is None else (axes,) if isinstance(axes, str) else axes


def names_text(names: Sequence[Any]) -> str:
    """Names in brackets, as flax takes them."""
    words = (f"({', '.join(name)})" if isinstance(name, tuple) else str(name) for name in names)
    return f"({', '.join(words)})"


def rules_for(rules: Any, port: str, library: str) -> tuple[tuple[str, Axes], ...]:
    """The rules of a port, of those of a case: a mapping or pairs; or port or library to its own."""
    if isinstance(rules, Mapping) and any(isinstance(one, Mapping) for one in rules.values()):
        rules = rules.get(port, rules.get(library, ()))
    pairs = rules.items() if isinstance(rules, Mapping) else rules
    return tuple((name, tuple(axes) if isinstance(axes, list) else axes) for name, axes in pairs)
