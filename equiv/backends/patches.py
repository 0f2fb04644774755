"""What a builder changes outside of its model: functions of libraries, the configuration of jax, the environment.

A port that replaces `jax.nn.gelu` would replace it for the reference too, and be compared with itself. What a builder
changes is therefore in force only while its own port is imported, built, traced and run.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import jax

from equiv.backends.base import Port
from equiv.backends.registry import all_libraries
from equiv.backends.sharding import within_calls
from equiv.core.case_files import LoadedCase

WATCHED_MODULES = (
    "jax",
    "jax.lax",
    "jax.nn",
    "jax.nn.initializers",
    "jax.numpy",
    "jax.numpy.linalg",
    "jax.random",
    "jax.scipy.special",
    "numpy",
    "optax",
)
"""Modules whose public functions a model calls; those of the model libraries come from their backends."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One change: a function of a module or class, an option of jax, or a variable of the environment.

    Attributes:
        owner: the module or class, `jax.config`, or `os.environ`.
        name: in it.
        before: its value before.
        after: its value after; None in the environment: it was deleted.
    """

    owner: Any
    name: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        """What was changed, in words."""
        if self.owner is os.environ:
            return f"the environment variable {self.name}"
        if self.owner is jax.config:
            return f"jax.config.{self.name}, {self.before!r} to {self.after!r}"
        module = f"{self.owner.__module__}." if inspect.isclass(self.owner) else ""
        return f"{module}{getattr(self.owner, '__qualname__', self.owner.__name__)}.{self.name}"

    def put(self, value: Any) -> None:
        """Set what it changes to a value."""
        if self.owner is jax.config:
            jax.config.update(self.name, value)
        elif self.owner is not os.environ:
            setattr(self.owner, self.name, value)
        elif value is None:
            os.environ.pop(self.name, None)
        else:
            os.environ[self.name] = value


_PATCHES: "WeakKeyDictionary[Any, tuple[Patch, ...]]" = WeakKeyDictionary()
"""Builder, without what wraps it, to what it has changed.

A module is imported once: later builds change nothing any more, and need it.
"""


@dataclass(frozen=True)
class LibraryState:
    """What builders could change, as it is now.

    Attributes:
        functions: each owner with its attributes.
        options: options of jax.
        environment: variables of the environment.
    """

    functions: Sequence[tuple[Any, Mapping[str, Any]]]
    options: Mapping[str, Any]
    environment: Mapping[str, str]


def read_state() -> LibraryState:
    """Read what builders could change."""
    names = dict.fromkeys((*WATCHED_MODULES, *(name for library in all_libraries() for name in library.modules)))
    modules = [module for name in names if (module := sys.modules.get(name)) is not None]
    owners: dict[Any, Mapping[str, Any]] = {module: dict(vars(module)) for module in modules}
    for module in modules:
        owners |= {one: dict(vars(one)) for one in list(vars(module).values()) if isinstance(one, type)}
    return LibraryState(tuple(owners.items()), dict(jax.config.values), dict(os.environ))


def find_patches(before: LibraryState) -> tuple[Patch, ...]:
    """Find what has changed since a state was read; what is only added replaces nothing."""
    found: list[Patch] = []
    for owner, attributes in before.functions:
        current = vars(owner)
        # Almost always nothing has changed, which this sees without a step of Python for each attribute.
        if all(map(is_, map(current.get, attributes), attributes.values())):
            continue
        found += [
            Patch(owner, name, value, current[name])
            for name, value in attributes.items()
            if current.get(name) is not value and current.get(name) is not None and callable(value)
        ]
    now = jax.config.values
    found += [
        Patch(jax.config, name, value, now[name])
        for name, value in before.options.items()
        if name in now and now[name] is not value and now[name] != value
    ]
    return (
        *found,
        *(
            Patch(os.environ, name, before.environment.get(name), os.environ.get(name))
            for name in {*before.environment, *os.environ}
            if before.environment.get(name) != os.environ.get(name)
        ),
    )


@contextmanager
def with_own_patches(builder: Any) -> Iterator[None]:
    """Within it libraries are as a builder has changed them; after it they are as before.

    What it changes within is remembered for the next time.
    """
    before = read_state()
    for patch in patches_of(builder):
        patch.put(patch.after)
    try:
        yield
    finally:
        found = find_patches(before)
        _undo(found)
        if found:
            remember_patches(builder, found)


def remember_patches(builder: Any, patches: tuple[Patch, ...]) -> None:
    """Remember what a builder, or the import of its module, has changed."""
    if patches:
        with suppress(TypeError):  # cannot be referred to weakly: each build has to change everything itself
            _PATCHES[inspect.unwrap(builder)] = patches


def isolate_import(load: Callable[[], LoadedCase]) -> LoadedCase:
    """Load a case file; what its import changes is in force for this case only.

    Functions that it replaces are kept for its builders. Options of jax and of the environment hold for the whole case,
    as a case file that enables 64-bit types has a batch of them.

    Args:
        load: loads it; what it raises is passed on.

    Returns:
        The case, with what was changed and how to have it in force.
    """
    before = read_state()
    found: tuple[Patch, ...] = ()
    try:
        loaded = load()
    finally:
        found = find_patches(before)
        _undo(found)
    options = tuple(one for one in found if one.owner in (jax.config, os.environ))
    for builder in loaded.case.models.values():
        remember_patches(builder, tuple(one for one in found if one not in options))
    return replace(loaded, changes=tuple(one.text for one in options), within=partial(_in_force, options))


@contextmanager
def _in_force(patches: Sequence[Patch]) -> Iterator[None]:
    for patch in patches:
        patch.put(patch.after)
    try:
        yield
    finally:
        _undo(patches)


def _undo(patches: Sequence[Patch]) -> None:
    for patch in reversed(patches):
        patch.put(patch.before)


def patches_of(builder: Any) -> tuple[Patch, ...]:
    """What a builder has changed so far."""
    try:
        return _PATCHES.get(inspect.unwrap(builder), ())
    except TypeError:  # cannot be referred to weakly: nothing is remembered of it
        return ()


def keep_patches(port: Port, builder: Any) -> Port:
    """A port whose functions run with what its builder has changed, and only they."""
    if not patches_of(builder):
        return port
    patched = tuple(patch.text for patch in patches_of(builder))
    return replace(within_calls(port, partial(with_own_patches, builder)), patched=patched)
