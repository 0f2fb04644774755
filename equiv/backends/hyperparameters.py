"""What the layers of a built model hold besides arrays, and the model with one of it changed. No library is in here."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax

from equiv.backends.base import Port, Request

TURN = jax.make_user_context(None)
"""Part of the key of JAX's caches: a function that is jitted outside of its builder is traced anew for every change."""


NUMBERS = itertools.count(1)


NAMES = ("name", "parent", "scope", "module_name")
"""Attributes of modules that say where they are, not what they do."""


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """One attribute of one layer that is not an array.

    Attributes:
        place: path of the layer, as its library writes it; empty for the model itself.
        layer: class of the layer.
        name: of the attribute; `layers[1]` is an element of it.
        value: a number, flag, text, function, None, or a tuple of them.
    """

    place: str
    layer: str
    name: str
    value: Any


def held(place: str, module: Any, attributes: Mapping[str, Any]) -> Iterator[Hyperparameter]:
    """The hyperparameters among a module's attributes; functions in a tuple or list count one by one."""
    for name, value in attributes.items():
        if name.startswith("_") or name in NAMES:
            continue
        if isinstance(value, tuple | list) and any(map(callable, value)):
            elements = [(f"{name}[{index}]", element) for index, element in enumerate(value)]
            yield from (Hyperparameter(place, type(module).__name__, *one) for one in elements if _plain(one[1]))
        elif _plain(value):
            yield Hyperparameter(place, type(module).__name__, name, value)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    is_function = callable(value) and hasattr(value, "__name__")
    return value is None or isinstance(value, bool | int | float | str | jax.lax.Precision) or is_function


def attribute(name: str, old: Any, value: Any) -> tuple[str, Any]:
    """The attribute to set, and what to: for `layers[1]` all of `layers`, with one other element.

    Args:
        name: of the hyperparameter.
        old: what the attribute is, by its name.
        value: of the hyperparameter.
    """
    whole, _, index = name.partition("[")
    if not index:
        return name, value
    elements = list(old(whole))
    elements[int(index.removesuffix("]"))] = value
    return whole, type(old(whole))(elements)


@contextmanager
def anew() -> Iterator[None]:
    """Nothing that is traced within is taken from what was traced before."""
    with TURN(next(NUMBERS)):
        yield


def called(port: Port, request: Request, watch: AbstractContextManager[None]) -> None:
    """Call every method in every mode, abstractly, while somebody watches."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    with watch, anew():
        for method, names in request.methods.items():
            arguments = tuple(request.batch[name] for name in names)
            for train in (False, True) if port.modes else (True,):

                def call(leaves: Any, arguments: Any, key: Any, method: str = method, train: bool = train) -> Any:
                    return port.apply(leaves, method, arguments, train, key)[0]

                jax.eval_shape(call, dict(port.leaves), arguments, key)


def distinct(found: Iterable[Hyperparameter]) -> tuple[Hyperparameter, ...]:
    """Each once, in the order of their first appearance: a layer is called in every method and mode."""
    return tuple({(one.place, one.layer, one.name): one for one in reversed(list(found))}.values())[::-1]


def within(build: Callable[[], Port], change: Callable[[], AbstractContextManager[None]]) -> Port:
    """A port that is built, called and trained within a change."""

    def changed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any) -> Any:
            with change(), anew():
                return function(*arguments)

        return run

    port = changed(build)()
    functions = {name: changed(getattr(port, name)) for name in ("apply", "begin", "step", "fresh")}
    return replace(port, **functions, written=None)
