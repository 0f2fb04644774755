"""Anchors: what a link on the page points at. They are made of names, so that an address can be kept and sent."""

import re
import zlib

from equiv.report.runs.merge import Entry


def slug(text: str) -> str:
    """A text with nothing in it but letters, digits, `_`, `.` and `-`; where that loses something, told apart."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return plain if plain == text else f"{plain}-{zlib.crc32(text.encode()):x}"


def anchor(entry: Entry, *inside: str) -> str:
    """`batch_norm@cpu`, and a place inside it: `batch_norm@cpu.nnx`."""
    return ".".join((f"{slug(entry.case.name)}@{slug(entry.label)}", *map(slug, inside)))
