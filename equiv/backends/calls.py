"""The arguments of a call of a model, as its function takes them. No model library is imported."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from equiv.backends.base import Call
from equiv.core.method_call import MODE_ARGUMENTS, Input, MethodCall


def call_arguments(
    function: Callable[..., Any], call: MethodCall, arrays: Sequence[Any], train: bool, before: Sequence[Any] = ()
) -> Call:
    """The arguments of a call of a model, with those that select its mode.

    Args:
        function: what is called. Inputs that it takes by keyword only are given so.
        call: how.
        arrays: one for each of the inputs of the call; for PRNG keys their data.
        train: the mode that is asked; the call may have one of its own.
        before: arguments that come first: variables, a key.
    """
    named_arrays = zip(call.inputs, arrays, strict=True)
    positional, own = call.bind([as_keys(one) if name in call.keys else one for name, one in named_arrays])
    only = _keyword_only(function)
    named = {one.name: value for one, value in zip(call.positional, positional, strict=True) if _is_named(one, only)}
    rest = [value for one, value in zip(call.positional, positional, strict=True) if not _is_named(one, only)]
    keywords = {**named, **own}
    given = (*before, *rest)
    return given, {**keywords, **mode_arguments(function, call, call.in_train_mode(train), given, keywords)}


def as_keys(data: Any) -> jax.Array:
    """The PRNG keys of their data: programs and probes hold numbers only, whatever a call takes.

    Args:
        data: `uint32[..., 2]`; or keys already, which are returned: a train step is given the batch as its user has it.
    """
    if jax.numpy.issubdtype(data.dtype, jax.dtypes.prng_key):
        return data
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def mode_arguments(
    function: Callable[..., Any], call: MethodCall, train: bool, given: Sequence[Any], keywords: Collection[str]
) -> dict[str, bool]:
    """The arguments that set the mode of a call, e.g. `{"training": True}`, but for those that it has already.

    A function that hands on any keyword, and names no mode, is given what the call says.

    Args:
        function: what is called.
        call: how.
        train: whether in train mode.
        given: the positional arguments of the call.
        keywords: its keyword arguments.
    """
    signature = inspect.signature(function)
    known = {name: value == train for name, value in MODE_ARGUMENTS.items() if name in signature.parameters}
    if not known and any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values()):
        return dict(call.mode_keywords)
    try:
        bound = signature.bind_partial(*given).arguments
    except TypeError:  # too many arguments: the call itself says it best
        bound = {}
    return {name: value for name, value in known.items() if name not in bound and name not in keywords}


def has_free_mode(function: Callable[..., Any], call: MethodCall, before: int = 0) -> bool:
    """Whether a method has an argument for the mode that its call leaves open.

    Args:
        function: what is called.
        call: how.
        before: number of arguments that come first.
    """
    only = _keyword_only(function)
    given = (None,) * (before + sum(not _is_named(one, only) for one in call.positional))
    return call.mode is None and bool(mode_arguments(function, call, True, given, call.keywords))


def _keyword_only(function: Callable[..., Any]) -> frozenset[str]:
    """The names of the parameters that are given by keyword only."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY)


def _is_named(argument: Any, only: Collection[str]) -> bool:
    return isinstance(argument, Input) and argument.name in only
