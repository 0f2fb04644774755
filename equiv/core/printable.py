"""Texts of others as they may be printed, and names for files: a case, a library or a result may hold anything."""

import hashlib
import re

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, which a terminal obeys; separators of lines; what turns the direction of
writing round (Unicode Standard Annex 9); and halves of characters, which no stream can encode."""

MAX_FILE_NAME = 200
"""Most bytes of a file's name: 255 on usual file systems, less what is added to it."""


def printable(text: str) -> str:
    """Replace every character that is not printed but obeyed; line feeds and tabs stay."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def escape_json(data: bytes) -> bytes:
    r"""Write what is not printed but obeyed as `\u009b` in JSON, which then means the same."""
    text = data.decode()
    if UNPRINTABLE.search(text) is None:
        return data
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def file_name(text: str) -> str:
    """Make a file's name, no path, of any text: other texts have other names, those that can stay as they are do."""
    name = re.sub(r"[^\w.+ -]", "_", text)
    name = f"_{name[1:]}" if name.startswith(".") else name
    if name == text and 0 < len(name.encode()) <= MAX_FILE_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: MAX_FILE_NAME - 9].decode(errors='ignore')}-{digest}"
