"""Parts of the page that are unpacked when they are opened: several in one gzip, which knows what they share."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 150_000
"""Bytes that one block unpacks to, if its parts are not larger by themselves: opening any part unpacks its block."""


@dataclass
class Packer:
    """Parts collected while a page is made."""

    blocks: list[list[str]] = field(default_factory=list)
    size: int = 0

    def add(self, text: str) -> str:
        """Take a part; its address is the number of its block and its place there, `0:2`."""
        length = len(text.encode())
        if not self.blocks or self.size + length > MOST:
            self.blocks.append([])
            self.size = 0
        self.blocks[-1].append(text)
        self.size += length
        return f"{len(self.blocks) - 1}:{len(self.blocks[-1]) - 1}"

    def packed(self) -> Sequence[str]:
        """Every block as base64, which no name in a part can break out of; without a time stamp."""
        return [
            base64.b64encode(gzip.compress(json.dumps(block).encode(), 9, mtime=0)).decode() for block in self.blocks
        ]


def tight(html: str) -> str:
    """HTML without empty lines and indentation, outside of code, where lines are counted."""
    parts = re.split(r"(<pre.*?</pre>)", html, flags=re.DOTALL)
    parts[::2] = [re.sub(r"\s*\n\s*", "\n", part) for part in parts[::2]]
    return "".join(parts)
