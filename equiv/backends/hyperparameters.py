"""The hyperparameters of the layers of a model, and the model with one of them changed. No library is imported."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax

from equiv.backends.base import Port, PortSpec
from equiv.compat import trace_context

TRACE_CONTEXT = trace_context()
"""Part of the key of JAX's trace cache: a function that is jitted outside of its builder is retraced per change."""

TRACE_NUMBERS = itertools.count(1)

LOCATION_ATTRIBUTES = ("name", "parent", "scope", "module_name")
"""Attributes of modules that are their location, not hyperparameters."""


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """One attribute of one layer that is not an array.

    Attributes:
        place: path of the layer in its library's notation; empty for the model itself.
        layer: class name of the layer.
        name: of the attribute; `layers[1]` for an element of it.
        value: a number, bool, string, function, None, or a tuple of them.
    """

    place: str
    layer: str
    name: str
    value: Any


def module_hyperparameters(place: str, module: Any, attributes: Mapping[str, Any]) -> Iterator[Hyperparameter]:
    """The hyperparameters among the attributes of a module; each function in a tuple or list is one."""
    for name, value in attributes.items():
        if name.startswith("_") or name in LOCATION_ATTRIBUTES:
            continue
        if isinstance(value, tuple | list) and any(map(callable, value)):
            elements = [(f"{name}[{index}]", element) for index, element in enumerate(value)]
            yield from (
                Hyperparameter(place, type(module).__name__, *one) for one in elements if _is_plain_value(one[1])
            )
        elif _is_plain_value(value):
            yield Hyperparameter(place, type(module).__name__, name, value)


def _is_plain_value(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain_value, value))
    is_function = callable(value) and hasattr(value, "__name__")
    return value is None or isinstance(value, bool | int | float | str | jax.lax.Precision) or is_function


def attribute_override(name: str, old: Any, value: Any) -> tuple[str, Any]:
    """The attribute to set and its new value: for `layers[1]` all of `layers`, with one element replaced.

    Args:
        name: of the hyperparameter.
        old: attribute name to its current value.
        value: new value of the hyperparameter.
    """
    whole, _, index = name.partition("[")
    if not index:
        return name, value
    elements = list(old(whole))
    elements[int(index.removesuffix("]"))] = value
    return whole, type(old(whole))(elements)


@contextmanager
def fresh_trace_cache() -> Iterator[None]:
    """Retrace every function within the context; no cached trace is reused."""
    with TRACE_CONTEXT(next(TRACE_NUMBERS)):
        yield


def trace_all_methods(port: Port, spec: PortSpec, watch: AbstractContextManager[None]) -> None:
    """Trace every method in every mode within the context `watch`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    with watch, fresh_trace_cache():
        for method, asked in spec.methods.items():
            arguments = tuple(spec.batch[name] for name in asked.inputs)
            for train in (False, True) if port.has_modes else (True,):

                def call(leaves: Any, arguments: Any, key: Any, method: str = method, train: bool = train) -> Any:
                    return port.apply(leaves, method, arguments, train, key)[0]

                jax.eval_shape(call, dict(port.leaves), arguments, key)


def unique_hyperparameters(found: Iterable[Hyperparameter]) -> tuple[Hyperparameter, ...]:
    """Remove duplicates, in order of first appearance: a layer is called in every method and mode."""
    return tuple({(one.place, one.layer, one.name): one for one in reversed(list(found))}.values())[::-1]


def build_with_override(build: Callable[[], Port], change: Callable[[], AbstractContextManager[None]]) -> Port:
    """Build a port whose functions all run within the context `change`."""

    def run_changed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any) -> Any:
            with change(), fresh_trace_cache():
                return function(*arguments)

        return run

    port = run_changed(build)()
    functions = {name: run_changed(getattr(port, name)) for name in ("apply", "init_training", "step", "init")}
    return replace(port, **functions, user_programs=None)
