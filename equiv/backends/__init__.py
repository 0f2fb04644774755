"""The backends: one folder per library, imported only if a case uses it."""

import importlib
import pkgutil
from types import ModuleType

from equiv.errors import CaseError, NotRun

HYPERPARAMETERS_MODULE = "hyperparameters"


def backend_names() -> tuple[str, ...]:
    """The names of all backends: the subfolders of this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def load_backend(name: str) -> ModuleType:
    """Import the module of a backend.

    Raises:
        CaseError: there is no such backend.
        NotRun: its library is not installed.
    """
    if name not in backend_names():
        raise CaseError(
            f"{name}: no such backend; there are: {', '.join(backend_names())}. Rename the key in the case's models."
        )
    try:
        return importlib.import_module(f"equiv.backends.{name}")
    except ModuleNotFoundError as missing:
        raise NotRun(f"{name}: {missing.name} is not installed here. Install it to compare this port.") from missing


def load_hyperparameters(name: str) -> ModuleType | None:
    """Import the hyperparameters module of a backend; None if it has none."""
    backend = importlib.import_module(f"equiv.backends.{name}")
    if all(module.name != HYPERPARAMETERS_MODULE for module in pkgutil.iter_modules(backend.__path__)):
        return None
    return importlib.import_module(f"equiv.backends.{name}.{HYPERPARAMETERS_MODULE}")
