"""Results json."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from equiv.core.results import SCHEMA_VERSION, RunResult
from equiv.errors import EquivError


@dataclass(frozen=True)
class _Version:
    """What is read first: another version need not have any other field of ours."""

    schema: int


def encode(result: RunResult) -> bytes:
    """A run as indented JSON with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, source: str) -> RunResult:
    """A run from JSON.

    Raises:
        EquivError: it is not a results file, or one of another schema version; names the place.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema
        if version != SCHEMA_VERSION:
            raise EquivError(
                f"{source}: results schema {version}, this version reads {SCHEMA_VERSION}. "
                "Write it anew with equiv run."
            )
        return msgspec.json.decode(data, type=RunResult)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EquivError(f"{source}: not a results file of equiv: {error}. Write it anew with equiv run.") from error


def read(path: Path) -> RunResult:
    """A run from a file.

    Raises:
        EquivError: it cannot be read, or is not a results file.
    """
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise EquivError(f"{path}: cannot be read: {error.strerror}. Give the JSON that equiv run wrote.") from error
