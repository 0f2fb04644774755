"""Meshes, and what all backends share of sharding: names of axes, and contexts around the calls of a port."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from math import prod
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Port
from equiv.core.annotation import Annotation, Axes, as_axes, names_text, rules_for
from equiv.core.batch_spec import BatchEntry
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.errors import CaseError

_OWN_MESH: ContextVar[bool] = ContextVar("own mesh", default=False)


def make_annotation(names: Any, rules: Any = None) -> Annotation:
    """What a library keeps of a leaf, as plain data.

    Args:
        names: names of axes as a tuple, a `PartitionSpec`, or a sharding or `Format` that has one.
        rules: pairs of logical axis and axes of a mesh; None: none.
    """
    while not isinstance(names, Sequence | jax.sharding.PartitionSpec):
        names = names.sharding if hasattr(names, "sharding") else names.spec
    pairs = ((name, _plain(axes)) for name, axes in rules or ())
    return Annotation(tuple(map(_plain, (names,) if isinstance(names, str) else names)), tuple(pairs))


def _plain(name: Any) -> Axes:
    """A name; an axis that the compiler may shard as it likes has none."""
    if name is None or name is jax.sharding.PartitionSpec.UNCONSTRAINED:
        return None
    return name if isinstance(name, str) else tuple(map(str, name))


def make_mesh(sizes: Mapping[str, int]) -> jax.sharding.Mesh:
    """A mesh of the first devices, whose axes the compiler shards over.

    Args:
        sizes: name to size of each axis.

    Raises:
        ValueError: there are not so many devices.
    """
    shape = tuple(sizes.values())
    devices = np.array(jax.devices()[: prod(shape)]).reshape(shape)
    automatic = (jax.sharding.AxisType.Auto,) * len(shape)
    return jax.sharding.Mesh(devices, tuple(sizes), axis_types=automatic)


@contextmanager
def within_mesh(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Within it a mesh is in force, as `jax.set_mesh` puts one; not to be entered while something is traced."""
    before = _OWN_MESH.set(True)
    try:
        with jax.set_mesh(mesh):
            yield
    finally:
        _OWN_MESH.reset(before)


def is_within_own_mesh() -> bool:
    """Whether the mesh in force is one of the case, and not one that its user has put in force."""
    return _OWN_MESH.get()


@contextmanager
def within_axes(meshes: Sequence[Mapping[str, int]]) -> Iterator[None]:
    """Within it functions that name axes of these meshes can be traced: each has one device, unless a mesh is there."""
    axes = tuple(dict.fromkeys(axis for sizes in meshes for axis in sizes))
    if not axes or not jax.sharding.get_abstract_mesh().empty:
        yield
        return
    automatic = (jax.sharding.AxisType.Auto,) * len(axes)
    before = _OWN_MESH.set(True)
    try:
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,) * len(axes), axes, axis_types=automatic)):
            yield
    finally:
        _OWN_MESH.reset(before)


@contextmanager
def within_case(loaded: LoadedCase) -> Iterator[None]:
    """Within it a case is built and run: what its file changes is in force, and so are the axes of its meshes.

    Each axis has one device there, so that a model that shards what it computes is run as a whole.
    """
    axes = [axis for sizes in loaded.case.meshes for axis in sizes]
    with loaded.within(), within_mesh(make_mesh(dict.fromkeys(axes, 1))) if axes else nullcontext():
        yield


def check_sharding(case: Case, entries: Mapping[str, BatchEntry]) -> None:
    """Check that what a case says of sharding names inputs and axes that there are.

    Raises:
        CaseError: an input is not in the batch or has fewer axes, or a rule names no axis of a mesh.
    """
    for name, axes in case.batch_axes.items():
        if name not in entries:
            known = ", ".join(entries)
            raise CaseError(f"batch_axes names {name!r}; the batch has {known}.", fix="Fix the name in batch_axes.")
        if len(axes) > (ndim := len(entries[name].spec.shape)):
            given = names_text(axes)
            raise CaseError(f"batch_axes has {given} for {name!r}, which has {ndim} axes.", fix="Fix batch_axes.")
    known = dict.fromkeys(axis for sizes in case.meshes for axis in sizes)
    given = case.rules
    own = [one for one in given.values() if isinstance(one, Mapping)] if isinstance(given, Mapping) else []
    for name, axes in (pair for one in own or [given] for pair in rules_for(one, "", "")):
        if case.meshes and (unknown := [axis for axis in as_axes(axes) if axis not in known]):
            raise CaseError(
                f"rules put {name!r} on {unknown[0]!r}, which is no axis of the meshes; they have {', '.join(known)}.",
                fix="Fix the name in rules.",
            )


def within_calls(port: Port, context: Callable[[], AbstractContextManager[Any]]) -> Port:
    """A port each of whose functions runs in a context of its own."""

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            with context():
                return function(*given)

        return call

    programs = port.user_programs
    return replace(
        port,
        apply=within(port.apply),
        init_training=within(port.init_training),
        step=within(port.step),
        init=within(port.init),
        user_programs=None if programs is None else within(programs),
    )
