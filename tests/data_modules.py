"""Data of tests that is a folder of modules, so that one more is a file and nothing else."""

import importlib
import pkgutil
from types import ModuleType


def modules_of(folder: str) -> list[ModuleType]:
    """Import every module of a folder below `tests`, in the order of their names.

    Args:
        folder: as it is imported, `comparison.planted_faults`.
    """
    path = importlib.import_module(folder).__path__
    return [importlib.import_module(f"{folder}.{module.name}") for module in pkgutil.iter_modules(path)]
