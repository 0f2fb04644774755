"""Fields of Flax Linen modules, read and changed while their methods are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn

from equiv.backends import hyperparameters as common
from equiv.backends.base import Port, PortSpec
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.linen.build import build


def hyperparameters(builder: Callable[..., Any], spec: PortSpec) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every layer that the methods call."""
    found: list[Hyperparameter] = []

    def record(call: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        values = {field.name: getattr(module, field.name, None) for field in fields(module)}
        found.extend(common.module_hyperparameters(_linen_module_path(module), module, values))
        return call(*arguments, **keywords)

    common.trace_all_methods(build(builder, spec), spec, nn.intercept_methods(record))
    return common.unique_hyperparameters(found)


def altered(builder: Callable[..., Any], spec: PortSpec, which: Hyperparameter, value: Any) -> Port:
    """Build the port with another value of one hyperparameter.

    Raises:
        CaseError: the builder or a method is invalid.
    """
    return common.build_with_override(partial(build, builder, spec), partial(_override_linen_field, which, value))


@contextmanager
def _override_linen_field(which: Hyperparameter, value: Any) -> Iterator[None]:
    def alter(call: Callable[..., Any], arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if (_linen_module_path(module), type(module).__name__) != (which.place, which.layer):
            return call(*arguments, **keywords)
        name, new = common.attribute_override(which.name, partial(getattr, module), value)
        before = getattr(module, name)
        object.__setattr__(module, name, new)  # a field of a frozen dataclass
        try:
            return call(*arguments, **keywords)
        finally:
            object.__setattr__(module, name, before)

    with nn.intercept_methods(alter):
        yield


def _linen_module_path(module: nn.Module) -> str:
    return "/".join(module.path)
