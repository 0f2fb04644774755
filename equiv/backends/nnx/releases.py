"""What differs between the releases of NNX that equiv runs on, from flax 0.11 on.

Everything else here is written for the newest release, and asks here. Each difference says which release changed it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flax import nnx

TAKES_GRAPH = "graph" in inspect.signature(nnx.value_and_grad).parameters


def shards_eagerly() -> bool:
    """Whether a variable with the names of its axes is sharded when it is made: it is from flax 0.12 on."""
    return hasattr(nnx, "using_eager_sharding") and nnx.using_eager_sharding()


def plain_variables(sharded: bool) -> AbstractContextManager[Any]:
    """Make plain variables within the context; flax 0.11 makes no other ones unless that is asked for.

    Args:
        sharded: whether they are sharded when they are made.
    """
    stack = ExitStack()
    if hasattr(nnx, "use_eager_sharding"):
        stack.enter_context(nnx.use_eager_sharding(sharded))
    if hasattr(nnx, "var_defaults"):
        stack.enter_context(nnx.var_defaults(hijax=False, ref=False))
    return stack


def reference_option(variable: nnx.Variable) -> str:
    """The option that made a variable whose reads and writes are operations; empty: it is a plain one."""
    if getattr(variable, "hijax", False):
        return "hijax=True"
    if getattr(variable, "ref", False):
        return "ref=True"
    return "use_ref=True" if getattr(variable, "has_ref", False) is True else ""  # in flax 0.11


def raw_value(variable: nnx.Variable) -> Any:
    """The value of a variable; `get_raw_value` is new in flax 0.12."""
    return variable.get_raw_value() if hasattr(variable, "get_raw_value") else variable.raw_value


def set_value(variable: nnx.Variable, value: Any) -> None:
    """Set the value of a variable; `set_value` is new in flax 0.12."""
    if hasattr(variable, "set_value"):
        variable.set_value(value)
    else:
        variable.value = value


def iter_modules(module: nnx.Module) -> Iterator[tuple[Any, nnx.Module]]:
    """Yield path and module of every module; `nnx.iter_modules` is new in flax 0.12, and was a method of a module."""
    yield from nnx.iter_modules(module) if hasattr(nnx, "iter_modules") else module.iter_modules()  # pyright: ignore[reportAttributeAccessIssue]


def value_and_grad(function: Callable[..., Any]) -> Callable[..., Any]:
    """`nnx.value_and_grad` of a function of a graph; that it is one is said from flax 0.12.8 on."""
    return nnx.value_and_grad(function, graph=True) if TAKES_GRAPH else nnx.value_and_grad(function)
