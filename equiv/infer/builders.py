"""Builders by their place, and the library that each is for."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from equiv.backends.identify import RNGS, library
from equiv.core.case import Builder
from equiv.errors import CaseError, EquivError, place, told
from equiv.infer.import_path import Place, attribute, kind_of, place_of


@dataclass(frozen=True)
class Located:
    """A builder and what it is for.

    Attributes:
        place: where it stands.
        backend: whose library its model is of.
        builder: as a case takes it.
        code: how a case names it, with `{name}` for the attribute.
    """

    place: Place
    backend: str
    builder: Builder
    code: str


def locate(given: str) -> Located:
    """The builder at a place.

    Raises:
        EquivError: nothing there can be imported, called or recognised.
    """
    where = place_of(given)
    found = attribute(given, where)
    if inspect.isclass(found):
        backend = library(found)
        if backend is None:
            raise CaseError(f"{given}: the class {found.__name__} is no Linen or NNX module. {WANTED}")
        if backend == "nnx":
            return Located(where, backend, *_taking_rngs(given, found))
        return Located(where, backend, *_without_arguments(given, found))
    if not inspect.isroutine(found) and (backend := library(_model(found))) is not None:
        if backend == "nnx":
            raise CaseError(
                f"{given}: a {type(found).__name__} that is already made; its parameters would be shared. "
                "Give a function of rngs that makes it."
            )
        return Located(where, backend, lambda: found, "lambda: {name}")
    if not callable(found):
        raise CaseError(f"{given}: got {kind_of(found)}. {WANTED}")
    if _required(found):
        return Located(where, "nnx", *_taking_rngs(given, found))
    return _called(given, where, found)


WANTED = (
    "Give a function that returns what hk.transform gives or a Linen module, or one of rngs that returns an NNX module."
)


def _called(given: str, where: Place, found: Callable[[], Any]) -> Located:
    try:
        returned = found()
    except (Exception, SystemExit) as error:
        raise EquivError(f"{given}: calling it raised {told(error)}. Mend {place(error, given)}.") from error
    backend = library(_model(returned))
    if backend is None or backend == "nnx":
        more = "; an NNX builder takes rngs" if backend else ""
        raise CaseError(f"{given}: it returned {kind_of(_model(returned))}{more}. {WANTED}")
    return Located(where, backend, found, "{name}")


def _model(returned: Any) -> Any:
    named = hasattr(returned, "_fields")
    return returned[0] if isinstance(returned, tuple) and returned and not named else returned


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a function or class takes; the metaclass of NNX modules hides what theirs does."""
    if not inspect.isclass(function):
        return list(inspect.signature(function).parameters.values())
    return list(inspect.signature(function.__init__).parameters.values())[1:]


def _required(function: Callable[..., Any]) -> list[inspect.Parameter]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in _parameters(function) if one.default is one.empty and one.kind not in fixed]


def _taking_rngs(given: str, function: Callable[..., Any]) -> tuple[Builder, str]:
    """An NNX builder as a case takes it: a function of rngs alone."""
    others = [one.name for one in _required(function) if one.name not in RNGS]
    if others:
        raise CaseError(
            f"{given}: it asks for {', '.join(map(repr, others))}, which nothing is known for. "
            "Give a function that takes nothing, or rngs for NNX, and sets the rest."
        )
    parameters = _parameters(function)
    name = next((one.name for one in parameters if one.name in RNGS), "rngs")
    first = parameters[0] if parameters else None
    if first is not None and first.name == name and first.kind is not inspect.Parameter.KEYWORD_ONLY:
        return function, "{name}"
    return lambda rngs: function(**{name: rngs}), f"lambda rngs: {{name}}({name}=rngs)"


def _without_arguments(given: str, function: Callable[..., Any]) -> tuple[Builder, str]:
    if others := [one.name for one in _required(function)]:
        raise CaseError(
            f"{given}: it asks for {', '.join(map(repr, others))}, which nothing is known for. "
            "Give a function that takes nothing and sets them."
        )
    return function, "{name}"
