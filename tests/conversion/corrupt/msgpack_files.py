"""Msgpack files that are cut, lie about their size, or grow without end."""

from pathlib import Path

import convert_helpers as h
import msgpack
import numpy as np
from conversion.good_checkpoint import NAME, OPTIMIZER, cut
from flax import serialization


def packed(tree=None, more: bytes = b"", data: bytes | None = None):
    """A msgpack file as flax writes it, of a tree or of bytes."""

    def make(folder: Path) -> Path:
        whole = data if data is not None else serialization.to_bytes(tree() if tree else nested())
        (folder / "old.msgpack").write_bytes(whole + more)
        return folder / "old.msgpack"

    return make


def nested() -> dict:
    """The good checkpoint as a tree of arrays."""
    return serialization.to_state_dict(h.jax.tree.map(np.asarray, h.trained(NAME, "haiku", OPTIMIZER)))


def with_text() -> dict:
    """A leaf that is a word."""
    tree = nested()
    tree["params"]["linear"]["w"] = "a word"
    return tree


def array_of(shape, data: bytes) -> bytes:
    """What flax writes for an array."""
    return msgpack.packb({"w": msgpack.ExtType(1, msgpack.packb((shape, "float32", data)))})


def deep() -> bytes:
    """Lists in lists."""
    return b"\x91" * 5000 + b"\xc0"


BAD = {
    "msgpack cut": (cut(packed()), r"old\.msgpack: the file is truncated at byte \d+"),
    "msgpack that goes on": (packed(more=b"\x01"), r"extra data after the end, at byte \d+ of \d+"),
    "msgpack with another extension": (
        packed(data=msgpack.packb({"w": msgpack.ExtType(42, b"12345678")})),
        r"an extension of type 42, which is no array",
    ),
    "msgpack with a false shape": (packed(data=array_of((10**6, 4), bytes(16))), r"declared as float32\[1000000, 4\]"),
    "msgpack with an array of nothing": (packed(data=b"\x81\xa1w\xc7\x00\x01"), r"reading as msgpack failed with"),
    "msgpack with a leaf longer than the file": (
        packed(data=b"\x81\xa1w\xc9\xff\xff\xff\xff\x01\x93"),
        r"the file is truncated at byte 10, inside a leaf",
    ),
    "msgpack with a text of four gigabytes": (
        packed(data=b"\x81\xa1w\xdb\xff\xff\xff\xffabc"),
        r"reading as msgpack failed with OutOfData",
    ),
    "msgpack of very many entries": (
        packed(data=b"\xdd\x00\x10\x00\x00" + b"\xc0" * 2**20),
        r"more than 400000 entries",
    ),
    "msgpack with a name twice": (packed(data=b"\x82\xa1w\x01\xa1w\x02"), r"two leaves are called 'w' in one map"),
    "msgpack, deep": (packed(data=deep()), r"nested more than 64 deep"),
    "msgpack with endless entries": (
        packed(data=b"\xdf\xff\xff\xff\xff\xa1w\x01"),
        r"the file is truncated at byte 8",
    ),
    "msgpack with a word": (
        packed(with_text),
        r"leaf 'params/linear/w' is a text, which is no array; haiku has",
    ),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
