"""Recognise the library of a model or builder by the modules of its classes; no library is imported."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from equiv.backends.library import Library
from equiv.backends.registry import all_libraries
from equiv.errors import CaseError

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def library_of(model: Any) -> Library | None:
    """The library of a model or a class of models; None if it is of no known library.

    The most derived class decides, as a library can build on another one's classes.
    """
    classes = model.__mro__ if inspect.isclass(model) else type(model).__mro__
    known = all_libraries()
    return next((library for one in classes for library in known if library.defines(one)), None)


def model_of(returned: Any) -> Any:
    """The model in what a builder returns: `model`, `(model, train_step)` or `(model, train_step, create)`."""
    # A transformed function is a named tuple and a model, (model, train step) is a plain tuple.
    is_namedtuple = hasattr(returned, "_fields")
    return returned[0] if isinstance(returned, tuple) and returned and not is_namedtuple else returned


def builder_parameters(builder: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, or of a class's `__init__`, which a metaclass can hide; no `*args`.

    Of a `functools.partial` those that it leaves open.
    """
    if inspect.isclass(builder):
        found = list(inspect.signature(builder.__init__).parameters.values())[1:]
    elif isinstance(builder, partial) and inspect.isclass(builder.func):
        open_parameters = builder_parameters(builder.func)[len(builder.args) :]
        found = [one for one in open_parameters if one.name not in builder.keywords]
    else:
        found = list(inspect.signature(builder).parameters.values())
    return [one for one in found if one.kind not in VARIADIC]


def required_parameters(builder: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters without a default."""
    return [one for one in builder_parameters(builder) if one.default is one.empty]


def library_by_arguments(port: str, builder: Callable[..., Any]) -> Library | None:
    """The library of a builder that takes an argument, without calling it; None: it has to be called.

    Raises:
        CaseError: builders of several libraries take such an argument, and the port is named after none of them.
    """
    names = {one.name for one in builder_parameters(builder)}
    known = all_libraries()
    takers = [library for library in known if names.intersection(library.builder_arguments)]
    if not takers and required_parameters(builder):
        takers = [library for library in known if library.builder_arguments]
    named = next((library for library in takers if library.name == port), None)
    if named is not None or not takers:
        return named
    if not required_parameters(builder) and any(library.name == port for library in known):
        return None
    if len(takers) > 1:
        libraries = " and ".join(library.name for library in takers)
        raise CaseError(
            f"{port}: builders of {libraries} take the same argument, so the library of this one cannot be told "
            "without calling it.",
            fix=f"Name the port after its library in the case's models, e.g. {takers[0].name!r}.",
            port=port,
        )
    return takers[0]


def describe_builders() -> str:
    """What a builder of each library is, for error messages."""
    *first, last = [library.builder_result for library in all_libraries()]
    return f"{', '.join(first)}, or {last}"
