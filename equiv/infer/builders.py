"""Builders, found by their import paths, and the library of each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from equiv.backends.identify import RNGS_PARAMETERS, library_of
from equiv.core.case import Builder
from equiv.errors import CaseError, EquivError, error_summary, user_code_location
from equiv.infer.import_path import ImportPath, describe_object, import_attribute, parse_import_path


@dataclass(frozen=True)
class LocatedBuilder:
    """A builder and its library.

    Attributes:
        import_path: where it was imported from.
        backend: the library of its model.
        builder: the function that a case's `models` takes.
        code: its source text in a case file, with `{name}` for the attribute.
    """

    import_path: ImportPath
    backend: str
    builder: Builder
    code: str


def locate_builder(given: str) -> LocatedBuilder:
    """Import a builder and identify its library.

    Raises:
        EquivError: it cannot be imported or called, or its library cannot be identified.
    """
    where = parse_import_path(given)
    found = import_attribute(given, where)
    if inspect.isclass(found):
        backend = library_of(found)
        if backend is None:
            raise CaseError(f"{given}: the class {found.__name__} is no Linen or NNX module. {BUILDER_HELP}")
        if backend == "nnx":
            return LocatedBuilder(where, backend, *_rngs_builder(given, found))
        return LocatedBuilder(where, backend, *_no_argument_builder(given, found))
    # A model itself was given. Linen modules are descriptions and can be shared; an NNX module holds its parameters.
    if not inspect.isroutine(found) and (backend := library_of(_model_of(found))) is not None:
        if backend == "nnx":
            raise CaseError(
                f"{given}: got a {type(found).__name__} instance; all builds would share its parameters. "
                "Give a function of rngs that returns a new one."
            )
        return LocatedBuilder(where, backend, lambda: found, "lambda: {name}")
    if not callable(found):
        raise CaseError(f"{given}: got {describe_object(found)}. {BUILDER_HELP}")
    # Only NNX builders take an argument, and calling one to see would need rngs.
    if _required_parameters(found):
        return LocatedBuilder(where, "nnx", *_rngs_builder(given, found))
    return _call_builder(given, where, found)


BUILDER_HELP = (
    "Give a function that returns what hk.transform gives or a Linen module, or one of rngs that returns an NNX module."
)


def _call_builder(given: str, where: ImportPath, found: Callable[[], Any]) -> LocatedBuilder:
    try:
        returned = found()
    except (Exception, SystemExit) as error:
        raise EquivError(
            f"{given}: calling it raised {error_summary(error)}. Fix {user_code_location(error, given)}."
        ) from error
    backend = library_of(_model_of(returned))
    if backend is None or backend == "nnx":
        more = "; an NNX builder takes rngs" if backend else ""
        raise CaseError(f"{given}: it returned {describe_object(_model_of(returned))}{more}. {BUILDER_HELP}")
    return LocatedBuilder(where, backend, found, "{name}")


def _model_of(returned: Any) -> Any:
    # hk.Transformed is a named tuple and a model, (model, train step) is a plain tuple.
    named = hasattr(returned, "_fields")
    return returned[0] if isinstance(returned, tuple) and returned and not named else returned


def _signature_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, or of a class's `__init__`, which the metaclass of NNX modules hides."""
    if not inspect.isclass(function):
        return list(inspect.signature(function).parameters.values())
    return list(inspect.signature(function.__init__).parameters.values())[1:]


def _required_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in _signature_parameters(function) if one.default is one.empty and one.kind not in fixed]


def _rngs_builder(given: str, function: Callable[..., Any]) -> tuple[Builder, str]:
    """An NNX builder as a function of rngs alone, and its source text."""
    others = [one.name for one in _required_parameters(function) if one.name not in RNGS_PARAMETERS]
    if others:
        raise CaseError(
            f"{given}: it requires the arguments {', '.join(map(repr, others))}, which equiv does not pass. "
            "Give a function without arguments, or of rngs for NNX, that sets the rest."
        )
    parameters = _signature_parameters(function)
    name = next((one.name for one in parameters if one.name in RNGS_PARAMETERS), "rngs")
    first = parameters[0] if parameters else None
    if first is not None and first.name == name and first.kind is not inspect.Parameter.KEYWORD_ONLY:
        return function, "{name}"
    return lambda rngs: function(**{name: rngs}), f"lambda rngs: {{name}}({name}=rngs)"


def _no_argument_builder(given: str, function: Callable[..., Any]) -> tuple[Builder, str]:
    if others := [one.name for one in _required_parameters(function)]:
        raise CaseError(
            f"{given}: it requires the arguments {', '.join(map(repr, others))}, which equiv does not pass. "
            "Give a function without arguments that sets them."
        )
    return function, "{name}"
