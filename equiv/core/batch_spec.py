"""Batch spec."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiv.core.leaves import LeafSpec
from equiv.errors import CaseError

ENTRY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>(?:\s*\d+\s*,)*(?:\s*\d+)?\s*)\](?::(?P<bound>\d+))?")


FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Entry:
    """One batch entry: shape, dtype, and for integers the upper bound of its values."""

    spec: LeafSpec
    bound: int


def parse_batch(batch: Mapping[str, str]) -> dict[str, Entry]:
    """Batch entries from `"float32[8,784]"` or `"int32[8]:10"`.

    Raises:
        CaseError: an entry that cannot be read, an integer without a bound, an empty batch.
    """
    return {name: _parse(name, text) for name, text in batch.items()}


def _parse(name: str, text: str) -> Entry:
    match = ENTRY.fullmatch(text.strip())
    if not match:
        raise CaseError(f'batch entry {name!r}: cannot read {text!r}. Write "float32[8,784]" or "int32[8]:10".')
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    dtype, bound = match["dtype"], match["bound"]
    if dtype not in (*FLOATS, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        raise CaseError(f"batch entry {name!r}: no dtype {dtype!r}. Write a numpy dtype name, e.g. float32 or int32.")
    if 0 in shape:
        raise CaseError(f"batch entry {name!r}: {text!r} is empty: nothing would be compared. Give every axis a size.")
    if "int" in dtype and not int(bound or 0):
        raise CaseError(f'batch entry {name!r}: {text!r} has no upper bound. Write e.g. "{dtype}{list(shape)}:10".')
    if "int" in dtype and int(bound) > np.iinfo(dtype).max:
        raise CaseError(f"batch entry {name!r}: {text!r} does not fit. Write a bound up to {np.iinfo(dtype).max}.")
    return Entry(LeafSpec(shape, dtype), int(bound or 2))
