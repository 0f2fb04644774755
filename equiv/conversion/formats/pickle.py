"""pickle, read only, and only on request: a restricted unpickler that creates arrays and containers and nothing else.

A pickle is a program. Here it may call only what `ALLOWED` names; any other name is refused before the call. The whole
tree is loaded into memory.
"""

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import optax

from equiv.backends.registry import all_libraries
from equiv.conversion.formats.checkpoint import (
    SMALL_FLOATS,
    TEXT,
    Checkpoint,
    CheckpointError,
    Format,
    dtype_named,
    naming_checkpoint,
    spec_of,
)
from equiv.conversion.formats.tree_paths import Empty, TreePath, flatten, path_text


class _Sealed(type):
    """Classes that a pickle can call but not modify: opcode BUILD sets attributes of any object that it gets."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it changes {cls.__name__}")


class _Dtype(metaclass=_Sealed):
    """Stand-in for a pickled numpy dtype: a call with its name, then a state of which only the byte order is used."""

    def __init__(self, kind: Any, *_: Any) -> None:
        self.dtype = dtype_named(kind)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(metaclass=_Sealed):
    """Stand-in for a pickled numpy array: empty at first, then a state with shape, dtype and bytes."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


class _FromBuffer(_Array):
    """Stand-in for a numpy array pickled with protocol 5 or later."""

    def __init__(self, buffer: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> None:
        self.__setstate__((1, shape, dtype, order == "F", buffer))


class _JaxArray(_Array):
    """An array of jax (0.10.2, `_src/array.py`), which holds the call and the state of one of numpy."""

    def __init__(self, make: Any, arguments: tuple[Any, ...], state: Any, _: Any) -> None:
        made = make(*arguments)
        if state is not None:
            made.__setstate__(state)
        self.array = made.array


class _Scalar(metaclass=_Sealed):
    def __new__(cls, dtype: _Dtype, data: bytes) -> Any:
        return np.frombuffer(data, dtype.dtype)[0]


class _Encoded(metaclass=_Sealed):
    """`_codecs.encode`, by which older protocols write bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes as {encoding!r}")
        return text.encode(encoding)


ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): object,
    ("numpy", "dtype"): _Dtype,
    **{("ml_dtypes", name): name for name in ("bfloat16", *SMALL_FLOATS)},
    ("_codecs", "encode"): _Encoded,
    ("collections", "OrderedDict"): OrderedDict,
    ("jax._src.array", "_reconstruct_array"): _JaxArray,
    # Immutable mappings of the libraries, pickled as a call with their dict.
    **{mapping: dict for library in all_libraries() for mapping in library.pickled_mappings},
}
"""Module and name in a pickle to their stand-in: numpy's own code gets no state out of a pickle."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if (kind := _optax_state(module, name)) is not None:
            return _Sealed(name, (tuple,), {"__slots__": (), "__new__": _new_named_tuple, "_fields": kind._fields})
        raise CheckpointError(
            f"it refers to {module}.{name}, which is no array.", fix="Do not load it, or save its arrays as npz."
        )


def _new_named_tuple(cls: type, *values: Any) -> Any:
    """Create a named tuple of a stand-in for a class of optax."""
    return tuple.__new__(cls, values)


def _optax_state(module: str, name: str) -> Any:
    """A state of optax, which is a named tuple; None for all else, and nothing is imported."""
    if module.split(".")[0] != optax.__name__ or module not in sys.modules:
        return None
    kind = vars(sys.modules[module]).get(name)
    plain = isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
    return kind if plain and kind.__module__ == module else None


def read(file: Path) -> Checkpoint:
    """Load a pickle through the restricted unpickler.

    Raises:
        CheckpointError: it refers to anything else, or holds something that is no array.
    """
    with naming_checkpoint(file, "reading as pickle"), file.open("rb") as stream:
        tree = _Unpickler(stream).load()
        if stream.read(1):
            raise CheckpointError("extra data after the end.", fix="Save one tree in it.")
        found = {path: leaf for path, leaf in flatten(tree).items() if not isinstance(leaf, Empty)}
        arrays = {path: _leaf_array(path, leaf) for path, leaf in found.items() if not isinstance(leaf, str)}
    specs = {path: spec_of(arrays[path]) if path in arrays else TEXT for path in found}
    return Checkpoint(file, "pickle", specs, arrays.__getitem__)


def _leaf_array(path: TreePath, leaf: Any) -> np.ndarray:
    if isinstance(leaf, _Array) and leaf.array is not None:
        return leaf.array
    if isinstance(leaf, np.generic | bool | int | float):
        return np.asarray(leaf)
    raise CheckpointError(
        f"leaf {path_text(path)!r} is {type(leaf).__name__}, which is no array.",
        fix="Leave it out.",
        leaf=path_text(path),
    )


PICKLE = Format(
    "pickle",
    (".pkl", ".pickle"),
    read,
    None,
    # msgpack may begin with this byte too (an empty map), but a pickle is longer than one byte.
    recognise=lambda head: head.startswith(b"\x80") and len(head) > 1,
    conclusive=False,
    can_run_code=True,
)
