"""What stands at `module:attribute` or `file.py:function`: builders, and functions that return a batch."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiv.errors import EquivError, place, told


@dataclass(frozen=True)
class Place:
    """Where something stands.

    Attributes:
        module: importable name.
        attribute: name in it.
        folder: from which the module is imported; None where it is installed.
    """

    module: str
    attribute: str
    folder: Path | None

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def place_of(given: str) -> Place:
    """`module:attribute` or `file.py:function`.

    Raises:
        EquivError: it cannot be read, or there is no such file.
    """
    module, colon, name = given.rpartition(":")
    if not colon or not module or not name:
        raise EquivError(f"{given!r}: cannot be read. Write module:attribute or file.py:function.")
    if not module.endswith(".py"):
        return Place(module, name, _root(module))
    file = Path(module)
    if not file.is_file():
        raise EquivError(f"{module}: no such file. Give file.py:function, with the path from here.")
    return Place(file.stem, name, file.resolve().parent)


def _root(module: str) -> Path | None:
    """The folder that a module is imported from, where that is the working folder and not an installed place."""
    top = module.partition(".")[0]
    here = Path.cwd()
    if (here / top).is_dir() or (here / f"{top}.py").is_file():
        return here
    return None


def attribute(given: str, where: Place) -> Any:
    """What stands at a place.

    Raises:
        EquivError: it cannot be imported, or is not there.
    """
    if where.folder is not None and str(where.folder) not in sys.path:
        sys.path.append(str(where.folder))  # after all others, where it hides no library
    _check_own(given, where)
    try:
        module = importlib.import_module(where.module)
    except ModuleNotFoundError as missing:
        if missing.name and where.module.startswith(missing.name):
            raise EquivError(
                f"{given}: there is no module {missing.name!r}, here or installed. "
                "Mend its name, or give file.py:function."
            ) from missing
        raise EquivError(f"{given}: importing it needs {missing.name}, which is not installed here.") from missing
    except (Exception, SystemExit) as error:
        raise EquivError(f"{given}: importing it raised {told(error)}. Mend {place(error, given)}.") from error
    found: Any = module
    for name in where.attribute.split("."):
        if not hasattr(found, name):
            own = [item for item in vars(module) if not item.startswith("_") and callable(getattr(module, item))]
            there = ", ".join(own[:8]) or "nothing to call"
            raise EquivError(
                f"{given}: {where.module} has no {where.attribute!r}; it has {there}. Mend the name after the colon."
            )
        found = getattr(found, name)
    return found


def _check_own(given: str, where: Place) -> None:
    """A file whose name another module has would never be the one that is imported."""
    if where.folder is None or "." in where.module:
        return
    loaded = sys.modules.get(where.module)
    spec = None if loaded else importlib.util.find_spec(where.module)
    known = getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    if known and not Path(known).resolve().is_relative_to(where.folder.resolve()):
        raise EquivError(
            f"{given}: another {Path(known).name} is called {where.module!r} too and is imported in its place. "
            "Rename the file."
        )


def batch_of(given: str) -> dict[str, str]:
    """Batch entries as a case writes them, from a function that returns a batch: an array, or names to arrays.

    Raises:
        EquivError: it cannot be called, or returns something else.
    """
    function = attribute(given, place_of(given))
    try:
        returned = function()
    except (Exception, SystemExit) as error:
        raise EquivError(f"{given}: calling it raised {told(error)}. Mend {place(error, given)}.") from error
    entries = returned if isinstance(returned, Mapping) else {"x": returned}
    wrong = [name for name, array in entries.items() if not hasattr(array, "shape") or not hasattr(array, "dtype")]
    if wrong or not entries:
        got = f"{wrong[0]!r} is {kind_of(entries[wrong[0]])}" if wrong else "it is empty"
        raise EquivError(f"{given}: {got}. Return an array, or a dictionary of names to arrays.")
    return {str(name): _entry(given, str(name), array) for name, array in entries.items()}


def _entry(given: str, name: str, array: Any) -> str:
    text = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    if "int" not in str(array.dtype):
        return text
    if not hasattr(array, "__array__"):
        raise EquivError(f"{given}: {name!r} is {text} without values, so nothing bounds it. Return an array of them.")
    return f"{text}:{int(np.max(np.asarray(array), initial=0)) + 1}"


def kind_of(thing: Any) -> str:
    """What something is, in a few words: itself where that is short."""
    shown = repr(thing)
    return shown if len(shown) < 60 else f"a {type(thing).__name__}"
