"""Attributes of Haiku modules, read and changed while their methods are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import haiku as hk

from equiv.backends import hyperparameters as own
from equiv.backends.base import Port, Request
from equiv.backends.haiku.build import build
from equiv.backends.hyperparameters import Hyperparameter


def hyperparameters(builder: Callable[..., Any], request: Request) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every layer that some method calls."""
    found: list[Hyperparameter] = []

    def look(call: Callable[..., Any], arguments: Any, keywords: Any, context: hk.MethodContext) -> Any:
        if context.method_name != "__init__":
            module = context.module
            found.extend(own.held(module.module_name, module, vars(module)))
        return call(*arguments, **keywords)

    own.called(build(builder, request), request, hk.intercept_methods(look))
    return own.distinct(found)


def altered(builder: Callable[..., Any], request: Request, which: Hyperparameter, value: Any) -> Port:
    """The port with another value of one hyperparameter.

    Raises:
        CaseError: the builder or a method cannot be used.
    """
    return own.within(partial(build, builder, request), partial(_change, which, value))


@contextmanager
def _change(which: Hyperparameter, value: Any) -> Iterator[None]:
    def alter(call: Callable[..., Any], arguments: Any, keywords: Any, context: hk.MethodContext) -> Any:
        module = context.module
        made = context.method_name != "__init__"  # a module has its name and attributes once that is done
        if made and (module.module_name, type(module).__name__) == (which.place, which.layer):
            setattr(module, *own.attribute(which.name, partial(getattr, module), value))
        return call(*arguments, **keywords)

    with hk.intercept_methods(alter):
        yield
