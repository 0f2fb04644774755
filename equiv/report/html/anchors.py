"""Anchors: ids that links on the page point at. They are made of names, so that a link stays valid in a new report."""

import re
import zlib

from equiv.report.runs.merge import MergedCase


def slug(text: str) -> str:
    """Replace all but letters, digits, `_`, `.` and `-`; a checksum keeps changed texts distinct."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return plain if plain == text else f"{plain}-{zlib.crc32(text.encode()):x}"


def anchor(entry: MergedCase, *inside: str) -> str:
    """Return the id of a case, `batch_norm@cpu`, or of a part of it, `batch_norm@cpu.nnx`."""
    return ".".join((f"{slug(entry.case.name)}@{slug(entry.label)}", *map(slug, inside)))
