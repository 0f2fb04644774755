"""Builders, found by their import paths, and the library of each."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from equiv.backends.base import Port
from equiv.backends.identify import (
    builder_parameters,
    describe_builders,
    library_by_arguments,
    library_of,
    model_of,
    required_parameters,
)
from equiv.backends.known_errors import known_fix
from equiv.backends.library import Library
from equiv.backends.patches import find_patches, read_state, remember_patches
from equiv.backends.registry import all_libraries
from equiv.core import layers
from equiv.core.case import Builder, Case
from equiv.errors import CaseError, EquivError, NotRun, error_summary, user_code_location
from equiv.infer.import_path import ImportPath, describe_object, import_attribute, parse_import_path

RESERVED_NAMES = (
    "Case",
    "CASE",
    "batch",
    "Path",
    "sys",
    "path",
    "channels_first",
    "layouts",
    "spatial",
    "transpose_kernel",
)
"""Names that a case file and the arguments of its rows need for themselves."""


@dataclass(frozen=True)
class LocatedBuilder:
    """A builder and its library.

    Attributes:
        import_path: where it was imported from.
        library: name of the library of its model.
        builder: the function that a case's `models` takes.
        argument: name of its argument; empty: it takes none.
        code: what it returns, as source text with `{name}` for the attribute.
        defined: what was imported: the function, the class, or the class of the instance; None: unknown.
        elsewhere: builds its port, given the name and the case, in another interpreter; None: it is built in this one.
    """

    import_path: ImportPath
    library: str
    builder: Builder
    argument: str
    code: str
    defined: Any = None
    elsewhere: Callable[[str, Case], Port] | None = None


def locate_builder(given: str | Any, side: str = "") -> LocatedBuilder:
    """Import a builder, where its import path is given, and identify its library.

    Args:
        given: the builder, or its import path.
        side: what messages call a builder that is given itself.

    Raises:
        EquivError: it cannot be imported or called, or its library cannot be identified.
    """
    if isinstance(given, str):
        where = parse_import_path(given)
        before = read_state()
        found = import_attribute(given, where)
        patches = find_patches(before)
        try:
            located = _identify(given, where, found)
        finally:
            for patch in reversed(patches):
                patch.put(patch.before)
        remember_patches(located.builder, patches)
        return located
    named = inspect.unwrap(given) if callable(given) else type(given)
    where = ImportPath(getattr(named, "__module__", ""), getattr(named, "__qualname__", side), None)
    try:
        return _identify(side, where, given)
    except EquivError as error:
        error.port = error.port or side
        raise


def _identify(given: str, where: ImportPath, found: Any) -> LocatedBuilder:
    if inspect.isclass(found):
        library = library_of(found)
        if library is None:
            raise CaseError(
                f"{given}: the class {found.__name__} is no model of a known library.",
                fix=f"Give {describe_builders()}.",
            )
        if library.transform:
            raise CaseError(
                f"{given}: {found.__name__} is a module of {library.name}, which is made inside a transform only.",
                fix=f"Give a function: def build(): return {library.transform.format(call=f'{found.__name__}()(x)')}.",
            )
        return _located(given, where, library, found)
    # A model itself was given. A description of one can be shared; one that holds its parameters cannot.
    if not inspect.isroutine(found) and (library := library_of(model_of(found))) is not None:
        if library.builder_arguments:
            raise CaseError(
                f"{given}: got a {type(found).__name__} instance; all builds would share its parameters.",
                fix=f"Give {library.builder_result}.",
            )
        return LocatedBuilder(where, library.name, lambda: found, "", "{name}", type(found))
    if not callable(found):
        raise CaseError(f"{given}: got {describe_object(found)}.", fix=f"Give {describe_builders()}.")
    # Calling a builder that takes an argument, to see what it returns, would need that argument.
    library = library_by_arguments(given, found) or _library_by_call(given, found)
    return _located(given, where, library, found)


def _library_by_call(given: str, found: Callable[[], Any]) -> Library:
    try:
        model = model_of(found())
    except ModuleNotFoundError as missing:
        raise NotRun(
            f"{given}: building the model needs {missing.name or missing}, which is not installed here.",
            fix="Install it.",
        ) from missing
    except (Exception, SystemExit) as error:
        raise EquivError(
            f"{given}: calling it raised {error_summary(error)}.",
            fix=f"{known_fix(error)}Fix {user_code_location(error, given)}.",
        ) from error
    library = library_of(model)
    if library is None or library.builder_arguments:
        more = f" of {library.name}, without an argument" if library else ""
        raise CaseError(f"{given}: it returned {describe_object(model)}{more}.", fix=f"Give {describe_builders()}.")
    return library


def _located(given: str, where: ImportPath, library: Library, function: Callable[..., Any]) -> LocatedBuilder:
    """A builder with the argument that its library's builders take, and its source text."""
    takes = library.builder_arguments
    if others := [one.name for one in required_parameters(function) if one.name not in takes]:
        raise CaseError(
            f"{given}: it requires the arguments {', '.join(map(repr, others))}, which equiv does not pass.",
            fix=f"Give {library.builder_result}, which sets the rest.{_forward_fix(where, library, function)}",
        )
    if not takes:
        return LocatedBuilder(where, library.name, function, "", "{name}()", function)
    parameters = builder_parameters(function)
    name = next((one.name for one in parameters if one.name in takes), takes[0])
    first = parameters[0] if parameters else None
    if first is not None and first.name == name and first.kind is not inspect.Parameter.KEYWORD_ONLY:
        return LocatedBuilder(where, library.name, function, name, f"{{name}}({name})", function)
    return LocatedBuilder(
        where, library.name, lambda argument: function(**{name: argument}), name, f"{{name}}({name}={name})", function
    )


def _forward_fix(where: ImportPath, taken_for: Library, function: Callable[..., Any]) -> str:
    """What else to do with a function that may compute a model, and not build one; empty: it builds one."""
    parameters = builder_parameters(function)
    if inspect.isclass(function) or any(one.name in taken_for.builder_arguments for one in parameters):
        return ""
    inputs = ", ".join(one.name for one in parameters)
    call = f"{where.attribute}({inputs})"
    made = [one.transform.format(call=call).replace("lambda x:", f"lambda {inputs}:") for one in all_libraries()]
    return "".join(
        f" If it is the model's forward pass, give def build(): return {one}." for one in made if call in one
    )


def port_names(builders: Sequence[LocatedBuilder]) -> tuple[str, str]:
    """Names for the ports of two builders: their libraries, else the functions' names, else `old` and `new`."""
    left, right = builders
    if left.library != right.library:
        return left.library, right.library
    one, two = (builder.import_path.attribute for builder in builders)
    taken = {*(library.name for library in all_libraries()), *dir(layers), *RESERVED_NAMES}
    usable = all(name.isidentifier() and not iskeyword(name) and name not in taken for name in (one, two))
    return (one, two) if one != two and usable else ("old", "new")
