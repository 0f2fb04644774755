"""One file per library; each is imported only when a case asks for it."""

import importlib
import pkgutil
from types import ModuleType

from equiv.errors import CaseError, NotRun

HELPERS = ("base", "hyperparameters", "nnx_leaves", "written")
"""Modules here that are no backends; nor are those that end so: `linen_hyperparameters`."""

HYPERPARAMETERS = "_hyperparameters"


def names() -> tuple[str, ...]:
    """The backends there are: one per file beside this one."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name not in HELPERS and not name.endswith(HYPERPARAMETERS)))


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
    if all(module.name != f"{name}{HYPERPARAMETERS}" for module in pkgutil.iter_modules(__path__)):
        return None
    return importlib.import_module(f"equiv.backends.{name}{HYPERPARAMETERS}")
