"""Pickles that run something, refer to something, or grow without end."""

import codecs
import os
import pickle
from pathlib import Path

import numpy as np
import optax
from conversion.good_checkpoint import cut, good


def pickled(tree):
    """A pickle of anything."""

    def make(folder: Path) -> Path:
        (folder / "old.pkl").write_bytes(tree if isinstance(tree, bytes) else pickle.dumps(tree))
        return folder / "old.pkl"

    return make


class Calls:
    """What a pickle runs when it is loaded."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def stack_global(module: str, name: str) -> bytes:
    """A pickle that asks for one name and calls it with nothing."""
    return b"\x80\x04" + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)) + b"\x93)R."


def changing(module: str, name: str) -> bytes:
    """A pickle that sets an attribute of what it asks for: BUILD with a state of slots."""
    asked = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + asked + b"\x93N}\x8c\x04evilK\x01s\x86b."


def laughs() -> list:
    """A thousand million leaves in a hundred bytes."""
    tree: list = [1.0]
    for _ in range(9):
        tree = [tree] * 10
    return tree


BAD = {
    "pickle that runs a command": (
        pickled(Calls(os.system, "touch evil")),
        r"it refers to posix\.system, which is no",
    ),
    "pickle that evaluates": (pickled(Calls(eval, "1")), r"it refers to builtins\.eval"),
    "pickle that reads a file": (pickled(Calls(open, "/etc/passwd")), r"it refers to (_?io)\.open"),
    "pickle of a function of optax": (pickled(Calls(optax.sgd, 0.1)), r"it refers to optax\._src\.alias\.sgd"),
    "pickle with a dotted name": (
        pickled(stack_global("optax._src.base", "EmptyState.__init__")),
        r"it refers to optax\._src\.base\.EmptyState\.__init__",
    ),
    "pickle that changes optax": (pickled(changing("optax._src.base", "EmptyState")), r"it changes EmptyState"),
    "pickle that changes a dtype": (pickled(changing("ml_dtypes", "bfloat16")), r"reading as pickle failed with Attr"),
    "pickle that changes the reader": (pickled(changing("numpy._core.multiarray", "scalar")), r"it changes _Scalar"),
    "pickle of an encoding": (pickled(Calls(codecs.encode, "a", "utf-7")), r"bytes as 'utf-7'"),
    "pickle of itself": (pickled(b"\x80\x04]\x94h\x00a."), r"nested more than 64 deep"),
    "pickle of bytes without end": (
        pickled(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc"),
        r"reading as pickle failed with",
    ),
    "pickle of a module's own import": (pickled(stack_global("optax._src.base", "jax")), r"it refers to optax"),
    "pickle of objects": (pickled({"w": np.array([{}, []], object)}), r"reading as pickle failed"),
    "pickle of an empty array that is huge": (
        pickled(
            b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93J\x00\x00\x00\x7f\x85\x8c\x01b\x87R."
        ),
        r"leaf '' is _Array, which is no array",
    ),
    "pickle of very many leaves": (pickled(laughs()), r"more than 200000 leaves"),
    "pickle cut": (cut(pickled(good())), r"old\.pkl: reading as pickle failed with"),
    "pickle that goes on": (pickled(pickle.dumps(good()) * 2), r"extra data after the end"),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
