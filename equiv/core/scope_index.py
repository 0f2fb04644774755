"""The index at the end of a scope: `blocks[2]` is a layer of a stack, `qkv[..., 0:8]` and `kernel[0:6]` are slices.

`qkv[..., 0:8 of 24]` are the first eight columns of every 24.
"""

import re

from equiv.core.layouts import Part
from equiv.core.packing import Block, Columns
from equiv.errors import CaseError


def parse_scope(scope: str) -> tuple[str, int | None, Part | None]:
    """Parse a scope to its path, the index in a stack if it ends in `[2]`, and the slice if it ends in one.

    Raises:
        CaseError: the brackets hold something else than numpy's start:stop, one index, or `...`.
    """
    found = re.fullmatch(r"(.*?)(?:\[(\d+)\])?(?:\[([^\[\]]*)\])?", scope, re.DOTALL)
    assert found is not None  # every part of the pattern may be empty
    item = None if found[2] is None else int(found[2])
    return found[1], item, None if found[3] is None else _parse_slice(found[3], scope)


def _parse_slice(text: str, scope: str) -> Part:
    words = [word.strip() for word in text.split(",")]
    if words[0] == "..." and (found := re.fullmatch(r"(\d+) ?: ?(\d+) of ([1-9]\d*)", words[-1])) and len(words) == 2:
        return Columns(int(found[1]), int(found[2]), int(found[3]))
    if words[0] == "..." and len(words) == 2 and (last := _parse_item(words[1], scope)) and not isinstance(last, int):
        return Columns(*last)
    return Block(tuple(_parse_item(word, scope) for word in words))


def _parse_item(word: str, scope: str) -> tuple[int, int] | int | None:
    if word == ":":
        return None
    if word.isdigit():
        return int(word)
    if found := re.fullmatch(r"(\d+) ?: ?(\d+)", word):
        return int(found[1]), int(found[2])
    raise _wrong_index(scope)


def _wrong_index(scope: str) -> CaseError:
    return CaseError(
        f"The scope {scope!r} ends in an index that cannot be read.",
        fix="Write [2] for a layer of a stack, [..., 0:8] for columns, [..., 0:8 of 24] for those of every 24 columns, "
        "or a slice such as [0:6] or [:, 1], no steps.",
    )
