"""Attributes of Flax NNX modules, read and changed on the built model."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx

from equiv.backends import hyperparameters as common
from equiv.backends.base import Port, PortSpec, unpack_builder_result
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.nnx import releases
from equiv.backends.nnx.build import NAME, build


def hyperparameters(builder: Callable[..., Any], spec: PortSpec) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every module of the built model."""
    port = spec.port or NAME
    model = nnx.eval_shape(lambda: _unpack_model(port, builder(nnx.Rngs(0))))
    return common.unique_hyperparameters(
        one
        for path, module in releases.iter_modules(model)
        for one in common.module_hyperparameters(_nnx_module_path(path), module, vars(module))
    )


def altered(builder: Callable[..., Any], spec: PortSpec, which: Hyperparameter, value: Any) -> Port:
    """The port with another value of one hyperparameter, set once the model is built.

    Raises:
        CaseError: the builder or a method is invalid.
    """
    return build(partial(_build_with_hyperparameter, spec.port or NAME, builder, which, value), spec)


def _build_with_hyperparameter(
    port: str, builder: Callable[..., Any], which: Hyperparameter, value: Any, rngs: nnx.Rngs
) -> Any:
    returned = builder(rngs)
    for path, module in releases.iter_modules(_unpack_model(port, returned)):
        if _nnx_module_path(path) == which.place:
            setattr(module, *common.attribute_override(which.name, partial(getattr, module), value))
            break
    return returned


def _unpack_model(port: str, returned: Any) -> nnx.Module:
    return unpack_builder_result(port, returned, (nnx.Module,), "an nnx.Module").model


def _nnx_module_path(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
