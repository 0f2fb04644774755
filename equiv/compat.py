"""What differs between the releases of jax and flax that equiv runs on, from jax 0.4.35 and flax 0.8 on.

Everything else asks here, and is written for the newest release. Each difference says which release changed it. Which
releases are refused is in `equiv.core.releases`, and `oldest` of each library. No library but jax is imported here.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module, metadata
from typing import Any

import jax
from jax import lax

from equiv.core.releases import read_release

OLD_CALLS = {"pjit": "jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr"}
"""Primitives of jax that only call a jaxpr, to the parameter that holds it, under the names of older releases.

`pjit` is `jit` from jax 0.7 on; `custom_vjp_call_jaxpr` is `custom_vjp_call`, with `call_jaxpr`, from jax 0.6.2 on.
"""


def enable_x64(enabled: bool) -> AbstractContextManager[Any]:
    """Enable or disable 64-bit types within the context; `jax.enable_x64` is new in jax 0.8."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    return import_module("jax.experimental").enable_x64(enabled)


def bind_equation(eqn: Any, operands: Sequence[Any], params: Mapping[str, Any] | None = None) -> list[Any]:
    """Bind the primitive of an equation to operands, under the current trace, and return all results.

    Until jax 0.9.0, `get_bind_params` returns the functions that come before the operands, too.

    Args:
        eqn: the equation.
        operands: a value for each of its inputs.
        params: other parameters than its own.
    """
    found: Any = eqn.primitive.get_bind_params(dict(eqn.params if params is None else params))
    functions, keywords = found if isinstance(found, tuple) else ((), found)
    outs = eqn.primitive.bind(*functions, *operands, **keywords)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def aval_of(value: Any) -> Any:
    """Shape and dtype of a value or tracer; `jax.typeof` is new in jax 0.5.3."""
    if hasattr(jax, "typeof"):
        return jax.typeof(value)
    return import_module("jax.api_util").shaped_abstractify(value)


def key_text(key: Any) -> str:
    """One key of a pytree path as text without brackets; `keystr` has `simple` from jax 0.5.3 on."""
    if "simple" in inspect.signature(jax.tree_util.keystr).parameters:
        return jax.tree_util.keystr((key,), simple=True)
    return str(next((getattr(key, name) for name in ("name", "key", "idx") if hasattr(key, name)), key))


def reduce_by(name: str) -> Callable[[Any, Sequence[int]], Any]:
    """The reduction over axes by `max`, `min` or `sum`; `lax.reduce_max` and so on are public from jax 0.5.3 on."""
    primitive, public = getattr(lax, f"reduce_{name}_p"), getattr(lax, f"reduce_{name}", None)
    return public or (lambda array, axes: primitive.bind(array, axes=tuple(axes)))


def jit_with_options(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """Jit a function with compiler options, which `jax.jit` takes from jax 0.4.38 on."""
    if "compiler_options" in inspect.signature(jax.jit).parameters:
        return jax.jit(function, compiler_options=dict(options))
    jitted = jax.jit(function)
    return lambda *arguments: jitted.lower(*arguments).compile(compiler_options=dict(options))(*arguments)


def passes_can_be_left_out() -> bool:
    """Whether a program can be compiled without some passes of XLA: the option `xla_disable_hlo_passes`, a list, is
    refused until jaxlib 0.4.38 (`Field is repeated; the method requires a singular field`), and taken by 0.6.2.
    """
    return read_release(metadata.version("jaxlib")) >= (0, 6)


def trace_context() -> Callable[[int], AbstractContextManager[Any]]:
    """Part of the key of jax's trace cache: a context for each number, within which functions are traced again.

    `jax.make_user_context` is new in jax 0.7.2; before, the caches are cleared.
    """
    if hasattr(jax, "make_user_context"):
        return jax.make_user_context(None)

    @contextmanager
    def cleared(_: int) -> Iterator[None]:
        jax.clear_caches()
        yield
        jax.clear_caches()

    return cleared


def partition_parts(spec: Any) -> tuple[Any, Any]:
    """The axes of a `PartitionSpec`, and what is unreduced or reduced: it is a tuple of the axes until jax 0.6.0."""
    axes = tuple(spec) if isinstance(spec, tuple) else spec.partitions
    return axes, (getattr(spec, "unreduced", frozenset()), getattr(spec, "reduced", frozenset()))
