"""Fields of Flax Linen modules, read and changed while their methods are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn

from equiv.backends import hyperparameters as own
from equiv.backends.base import Port, Request
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.linen.build import build


def hyperparameters(builder: Callable[..., Any], request: Request) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every layer that some method calls."""
    found: list[Hyperparameter] = []

    def look(call: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        values = {field.name: getattr(module, field.name, None) for field in fields(module)}
        found.extend(own.held(_place(module), module, values))
        return call(*arguments, **keywords)

    own.called(build(builder, request), request, nn.intercept_methods(look))
    return own.distinct(found)


def altered(builder: Callable[..., Any], request: Request, which: Hyperparameter, value: Any) -> Port:
    """The port with another value of one hyperparameter.

    Raises:
        CaseError: the builder or a method cannot be used.
    """
    return own.within(partial(build, builder, request), partial(_change, which, value))


@contextmanager
def _change(which: Hyperparameter, value: Any) -> Iterator[None]:
    def alter(call: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if (_place(module), type(module).__name__) != (which.place, which.layer):
            return call(*arguments, **keywords)
        name, new = own.attribute(which.name, partial(getattr, module), value)
        before = getattr(module, name)
        object.__setattr__(module, name, new)  # a field of a frozen dataclass
        try:
            return call(*arguments, **keywords)
        finally:
            object.__setattr__(module, name, before)

    with nn.intercept_methods(alter):
        yield


def _place(module: nn.Module) -> str:
    return "/".join(module.path)
