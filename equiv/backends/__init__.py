"""One file per library; each is imported only when a case asks for it."""

import importlib
import pkgutil
from types import ModuleType

from equiv.errors import CaseError, NotRun

HELPERS = ("base", "nnx_leaves", "written")
"""Modules here that are no backends."""


def names() -> tuple[str, ...]:
    """The backends there are: one per file beside this one."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS))


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
