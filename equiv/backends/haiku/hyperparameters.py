"""Attributes of Haiku modules, read and changed while their methods are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import haiku as hk

from equiv.backends import hyperparameters as common
from equiv.backends.base import Port, PortSpec
from equiv.backends.haiku.build import build
from equiv.backends.hyperparameters import Hyperparameter


def hyperparameters(builder: Callable[..., Any], spec: PortSpec) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every layer that the methods call."""
    found: list[Hyperparameter] = []

    def record(call: Callable[..., Any], arguments: Any, keywords: Any, context: hk.MethodContext) -> Any:
        if context.method_name != "__init__":
            module = context.module
            found.extend(common.module_hyperparameters(module.module_name, module, vars(module)))
        return call(*arguments, **keywords)

    common.trace_all_methods(build(builder, spec), spec, hk.intercept_methods(record))
    return common.unique_hyperparameters(found)


def altered(builder: Callable[..., Any], spec: PortSpec, which: Hyperparameter, value: Any) -> Port:
    """Build the port with another value of one hyperparameter.

    Raises:
        CaseError: the builder or a method is invalid.
    """
    return common.build_with_override(partial(build, builder, spec), partial(_override_haiku_attribute, which, value))


@contextmanager
def _override_haiku_attribute(which: Hyperparameter, value: Any) -> Iterator[None]:
    def alter(call: Callable[..., Any], arguments: Any, keywords: Any, context: hk.MethodContext) -> Any:
        module = context.module
        constructed = context.method_name != "__init__"  # after it, a module has its name and attributes
        if constructed and (module.module_name, type(module).__name__) == (which.place, which.layer):
            setattr(module, *common.attribute_override(which.name, partial(getattr, module), value))
        return call(*arguments, **keywords)

    with hk.intercept_methods(alter):
        yield
