"""Parts of the page that are decompressed when opened: several in one gzip block, which compresses repeated text."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_BLOCK_BYTES = 150_000
"""Most bytes in one block unless a single part is larger: opening a part decompresses its whole block."""


@dataclass
class Packer:
    """Parts collected while a page is rendered."""

    blocks: list[list[str]] = field(default_factory=list)
    size: int = 0

    def add(self, text: str) -> str:
        """Add a part and return its address, `0:2`: the index of its block, and its index there."""
        length = len(text.encode())
        if not self.blocks or self.size + length > MAX_BLOCK_BYTES:
            self.blocks.append([])
            self.size = 0
        self.blocks[-1].append(text)
        self.size += length
        return f"{len(self.blocks) - 1}:{len(self.blocks[-1]) - 1}"

    def packed(self) -> Sequence[str]:
        """Return every block as base64 of gzip, which needs no escaping in HTML; reproducible: no time stamp."""
        return [
            base64.b64encode(gzip.compress(json.dumps(block).encode(), 9, mtime=0)).decode() for block in self.blocks
        ]


def strip_whitespace(html: str) -> str:
    """Remove empty lines and indentation outside of `<pre>`."""
    parts = re.split(r"(<pre.*?</pre>)", html, flags=re.DOTALL)
    parts[::2] = [re.sub(r"\s*\n\s*", "\n", part) for part in parts[::2]]
    return "".join(parts)
