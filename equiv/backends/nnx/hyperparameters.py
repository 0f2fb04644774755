"""Attributes of Flax NNX modules, read and changed on the built model."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx

from equiv.backends import hyperparameters as own
from equiv.backends.base import Port, Request, take_apart
from equiv.backends.hyperparameters import Hyperparameter
from equiv.backends.nnx.build import NAME, build


def hyperparameters(builder: Callable[..., Any], request: Request) -> tuple[Hyperparameter, ...]:
    """Every hyperparameter of every module of the built model."""
    model = nnx.eval_shape(lambda: _model(builder(nnx.Rngs(0))))
    return own.distinct(
        one for path, module in nnx.iter_modules(model) for one in own.held(_place(path), module, vars(module))
    )


def altered(builder: Callable[..., Any], request: Request, which: Hyperparameter, value: Any) -> Port:
    """The port with another value of one hyperparameter, set once the model is built.

    Raises:
        CaseError: the builder or a method cannot be used.
    """
    return build(partial(_built, builder, which, value), request)


def _built(builder: Callable[..., Any], which: Hyperparameter, value: Any, rngs: nnx.Rngs) -> Any:
    returned = builder(rngs)
    for path, module in nnx.iter_modules(_model(returned)):
        if _place(path) == which.place:
            setattr(module, *own.attribute(which.name, partial(getattr, module), value))
            break
    return returned


def _model(returned: Any) -> nnx.Module:
    return take_apart(NAME, returned, (nnx.Module,), "an nnx.Module").model


def _place(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
