"""The backends that there are: found as folders of `equiv.backends`, and imported only if a case uses them."""

import importlib
import pkgutil
from functools import cache
from importlib import metadata
from types import ModuleType

from equiv import backends
from equiv.backends.library import Library
from equiv.core.releases import read_release
from equiv.errors import CaseError, NotRun

HYPERPARAMETERS_MODULE = "hyperparameters"


def backend_names() -> tuple[str, ...]:
    """The names of all backends: the subfolders of this package."""
    return _find_backends(tuple(backends.__path__))


@cache
def _find_backends(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The packages in these folders; cached, as every build asks for all of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folders) if module.ispkg))


def all_libraries() -> tuple[Library, ...]:
    """What is known of every library, in the order of their names; none of them is imported."""
    return tuple(map(load_library, backend_names()))


def load_library(name: str) -> Library:
    """What is known of a library, which is not imported.

    Raises:
        CaseError: there is no such backend.
    """
    _check_name(name)
    return importlib.import_module(f"equiv.backends.{name}.library").LIBRARY


def load_backend(name: str, port: str = "") -> ModuleType:
    """Import the module of a backend that has `build`, and with it the library.

    Args:
        name: of the backend.
        port: whose model is to be built, for the message; empty: that of the library.

    Raises:
        CaseError: there is no such backend.
        NotRun: its library is not installed, or older than what is read.
    """
    _check_oldest(load_library(name), port or name)
    try:
        return importlib.import_module(f"equiv.backends.{name}.build")
    except ModuleNotFoundError as missing:
        needed = load_library(name).distributions[0]
        raise NotRun(
            f"{port or name}: {missing.name} is not installed here.",
            fix=f"Install {needed} to compare this port.",
            port=port or name,
        ) from missing


def _check_oldest(library: Library, port: str) -> None:
    package, oldest = library.distributions[0], library.oldest
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return  # that it is missing is said where it is imported
    if oldest and read_release(installed) < read_release(oldest):
        others = " and ".join(one.name for one in all_libraries() if not one.oldest)
        raise NotRun(
            f"{port}: models of {library.name} are read from {package} {oldest} on, and {package} {installed} is "
            f"installed, with which models of {others} can be.",
            fix=f"Give the model in one of these, or install '{package}>={oldest}'.",
            port=port,
        )


def load_hyperparameters(name: str) -> ModuleType | None:
    """Import the hyperparameters module of a backend; None if it has none."""
    folder = importlib.import_module(f"equiv.backends.{name}")
    if all(module.name != HYPERPARAMETERS_MODULE for module in pkgutil.iter_modules(folder.__path__)):
        return None
    return importlib.import_module(f"equiv.backends.{name}.{HYPERPARAMETERS_MODULE}")


def _check_name(name: str) -> None:
    if name not in backend_names():
        raise CaseError(
            f"{name}: no such backend; there are: {', '.join(backend_names())}.",
            fix="Rename the key in the case's models.",
        )
