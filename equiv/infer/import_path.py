"""Import objects from `module:attribute` or `file.py:function`: builders, and functions that return a batch."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.errors import EquivError, error_summary, user_code_location


@dataclass(frozen=True)
class ImportPath:
    """An attribute of a module.

    Attributes:
        module: importable name.
        attribute: name in it.
        folder: the folder that the module is imported from; None for an installed module.
    """

    module: str
    attribute: str
    folder: Path | None

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def parse_import_path(given: str) -> ImportPath:
    """Parse `module:attribute` or `file.py:function`.

    Raises:
        EquivError: it cannot be parsed, or there is no such file.
    """
    module, colon, name = given.rpartition(":")
    if not colon or not module or not name:
        raise EquivError(f"{given!r}: cannot be read.", fix="Write module:attribute or file.py:function.")
    if not module.endswith(".py"):
        return ImportPath(module, name, _import_root(module))
    file = Path(module)
    if not file.is_file():
        raise EquivError(f"{module}: no such file.", fix="Give file.py:function, with the path from here.")
    return ImportPath(file.stem, name, file.resolve().parent)


def _import_root(module: str) -> Path | None:
    """The working directory if the module is in it; None for an installed module."""
    top = module.partition(".")[0]
    here = Path.cwd()
    if (here / top).is_dir() or (here / f"{top}.py").is_file():
        return here
    return None


def import_attribute(given: str, where: ImportPath) -> Any:
    """Import the object at an import path.

    Raises:
        EquivError: it cannot be imported, or the module has no such attribute.
    """
    if where.folder is not None and str(where.folder) not in sys.path:
        sys.path.append(str(where.folder))  # last, so that it shadows no library
    _check_not_shadowed(given, where)
    try:
        module = importlib.import_module(where.module)
    except ModuleNotFoundError as missing:
        # The same error comes from a wrong name and from an import within the module: the fixes differ.
        if missing.name and where.module.startswith(missing.name):
            raise EquivError(
                f"{given}: there is no module {missing.name!r}, here or installed.",
                fix="Fix its name, or give file.py:function.",
            ) from missing
        raise EquivError(
            f"{given}: importing it needs {missing.name}, which is not installed here.", fix="Install it."
        ) from missing
    except (Exception, SystemExit) as error:
        raise EquivError(
            f"{given}: importing it raised {error_summary(error)}.", fix=f"Fix {user_code_location(error, given)}."
        ) from error
    found: Any = module
    for name in where.attribute.split("."):
        if not hasattr(found, name):
            own = [item for item in vars(module) if not item.startswith("_") and callable(getattr(module, item))]
            there = ", ".join(own[:8]) or "nothing to call"
            raise EquivError(
                f"{given}: {where.module} has no {where.attribute!r}; it has {there}.",
                fix="Fix the name after the colon.",
            )
        found = getattr(found, name)
    return found


def _check_not_shadowed(given: str, where: ImportPath) -> None:
    """Refuse a file whose module name already belongs to another module: the other one would be imported."""
    if where.folder is None or "." in where.module:
        return
    loaded = sys.modules.get(where.module)
    spec = None if loaded else importlib.util.find_spec(where.module)
    known = getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    if known and not Path(known).resolve().is_relative_to(where.folder.resolve()):
        raise EquivError(
            f"{given}: another {Path(known).name} is called {where.module!r} too and is imported in its place.",
            fix="Rename the file.",
        )


@dataclass(frozen=True)
class ImportedBatch:
    """A function that returns a batch, imported where it is called.

    Attributes:
        import_path: `module:attribute` or `file.py:function`.
    """

    import_path: str

    def __call__(self) -> Any:
        """Import and call it.

        Raises:
            EquivError: it cannot be imported, or is no function.
        """
        function = import_attribute(self.import_path, parse_import_path(self.import_path))
        if not callable(function):
            raise EquivError(f"{self.import_path}: got {describe_object(function)}.", fix="Give a function.")
        return function()


def describe_object(thing: Any) -> str:
    """An object's repr if it is short, else its type."""
    shown = repr(thing)
    return shown if len(shown) < 60 else f"a {type(thing).__name__}"
