"""The batch of a case: `"float32[8,784]"` parsed to shape, dtype and bound."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiv.core.leaves import LeafSpec
from equiv.errors import CaseError

BATCH_ENTRY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>(?:\s*\d+\s*,)*(?:\s*\d+)?\s*)\](?::(?P<bound>\d+))?")

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class BatchEntry:
    """One batch entry: its shape and dtype, and for integers the exclusive upper bound of its values."""

    spec: LeafSpec
    bound: int


def parse_batch(batch: Mapping[str, str]) -> dict[str, BatchEntry]:
    """Parse batch entries such as `"float32[8,784]"` and `"int32[8]:10"`.

    Raises:
        CaseError: an entry cannot be parsed or is empty, or an integer entry has no bound.
    """
    return {name: _parse_entry(name, text) for name, text in batch.items()}


def _parse_entry(name: str, text: str) -> BatchEntry:
    match = BATCH_ENTRY.fullmatch(text.strip())
    if not match:
        raise CaseError(f"batch entry {name!r}: cannot parse {text!r}.", fix='Write "float32[8,784]" or "int32[8]:10".')
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    dtype, bound = match["dtype"], match["bound"]
    if dtype not in (*FLOAT_DTYPES, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        raise CaseError(
            f"batch entry {name!r}: no dtype {dtype!r}.", fix="Write a numpy dtype name, e.g. float32 or int32."
        )
    if 0 in shape:
        raise CaseError(
            f"batch entry {name!r}: {text!r} is empty: nothing would be compared.", fix="Give every axis a size."
        )
    if "int" in dtype and not int(bound or 0):
        raise CaseError(
            f"batch entry {name!r}: {text!r} has no upper bound.", fix=f'Write e.g. "{dtype}{list(shape)}:10".'
        )
    if "int" in dtype and int(bound) > np.iinfo(dtype).max:
        raise CaseError(
            f"batch entry {name!r}: {text!r} does not fit.", fix=f"Write a bound up to {np.iinfo(dtype).max}."
        )
    return BatchEntry(LeafSpec(shape, dtype), int(bound or 2))
