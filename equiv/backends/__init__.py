"""One file per library; each is imported only when a case asks for it."""

import importlib
import pkgutil
from types import ModuleType

from equiv.errors import CaseError, NotRun

HYPERPARAMETERS = "hyperparameters"


def names() -> tuple[str, ...]:
    """The backends there are: one folder each beside this file."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def load(name: str) -> ModuleType:
    """The backend's module.

    Raises:
        CaseError: there is no such backend.
        NotRun: its library is not installed.
    """
    if name not in names():
        raise CaseError(
            f"{name}: no such backend; there are: {', '.join(names())}. Rename the key in the case's models."
        )
    try:
        return importlib.import_module(f"equiv.backends.{name}")
    except ModuleNotFoundError as missing:
        raise NotRun(f"{name}: {missing.name} is not installed here. Install it to compare this port.") from missing


def load_hyperparameters(name: str) -> ModuleType | None:
    """What reads and changes the hyperparameters of a backend's layers; None where it has no such file."""
    found = importlib.import_module(f"equiv.backends.{name}")
    if all(module.name != HYPERPARAMETERS for module in pkgutil.iter_modules(found.__path__)):
        return None
    return importlib.import_module(f"equiv.backends.{name}.{HYPERPARAMETERS}")
