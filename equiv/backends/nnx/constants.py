"""What a builder computes without its random streams."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import jax
from jax.extend import core
from jax.interpreters import partial_eval

Name = TypeVar("Name")


def trace_constants(
    build: Callable[[Any], Mapping[Name, Any]],
) -> tuple[Callable[[], dict[Name, Any]], frozenset[Name]]:
    """Find which arrays a function of a random key computes without the key.

    Args:
        build: typed key to arrays by name.

    Returns:
        A function that computes them, in float64 inside `jax.enable_x64(True)`, and their names.
    """

    @lru_cache
    def trace(float64: bool) -> dict[Name, Callable[[], Any]]:
        names: list[Name] = []

        def flat(key: Any) -> list[Any]:
            arrays = build(key)
            names[:] = list(arrays)
            return [jax.numpy.asarray(array) for array in arrays.values()]

        closed = jax.make_jaxpr(flat)(jax.random.key(0))
        return {name: one for index, name in enumerate(names) if (one := _without_key(closed, index)) is not None}

    def compute() -> dict[Name, Any]:
        return {name: one() for name, one in trace(jax.config.read("jax_enable_x64")).items() if name in known}

    known = frozenset(trace(jax.config.read("jax_enable_x64")))
    return compute, known


def _without_key(closed: Any, index: int) -> Callable[[], Any] | None:
    """One output of a jaxpr as a function of nothing; None where it depends on the input."""
    wanted = [number == index for number in range(len(closed.out_avals))]
    jaxpr, (takes_key,) = partial_eval.dce_jaxpr(closed.jaxpr, wanted)
    if takes_key:
        return None
    function = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, closed.consts))
    return lambda: function()[0]
