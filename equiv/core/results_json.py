"""Read and write results.json."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from equiv.core.printable import escape_json
from equiv.core.recompute import recompute_verdicts
from equiv.core.results import RESULTS_SCHEMA_VERSION, RunResult
from equiv.core.results_v1 import upgrade_results
from equiv.errors import EquivError


@dataclass(frozen=True)
class _ResultsVersion:
    """Read first, as a file of another version may lack every other field."""

    schema: int


def encode_results(result: RunResult) -> bytes:
    """Encode a run as indented JSON with sorted keys; control characters in it are escaped."""
    return escape_json(msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1)) + b"\n"


def decode_results(data: bytes, source: str) -> RunResult:
    """Decode a run from JSON of this schema or of schema 1.

    Raises:
        EquivError: it is not a results file, or has another schema version; the message names the invalid field.
    """
    try:
        version = msgspec.json.decode(data, type=_ResultsVersion).schema
        if version == 1:
            return msgspec.convert(upgrade_results(msgspec.json.decode(data)), type=RunResult)
        if version != RESULTS_SCHEMA_VERSION:
            raise EquivError(
                f"{source}: results schema {version}, this version reads 1 and {RESULTS_SCHEMA_VERSION}.",
                fix="Regenerate it with equiv run.",
            )
        return msgspec.json.decode(data, type=RunResult)
    except RecursionError as error:
        raise EquivError(
            f"{source}: not a results file of equiv: lists in lists, too deep to be read.",
            fix="Regenerate it with equiv run.",
        ) from error
    except (msgspec.MsgspecError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise EquivError(
            f"{source}: not a results file of equiv: {error}.", fix="Regenerate it with equiv run."
        ) from error


def read_results(path: Path) -> RunResult:
    """Read a run from a file; grades, verdicts and headline are those that follow from its findings.

    Raises:
        EquivError: the file cannot be read, or is not a results file.
    """
    try:
        return recompute_verdicts(decode_results(path.read_bytes(), str(path)), str(path))
    except MemoryError as error:
        raise EquivError(
            f"{path}: too large to be read into memory ({path.stat().st_size / 1e9:.1f} GB).",
            fix="Give the JSON file that equiv run wrote.",
        ) from error
    except OSError as error:
        raise EquivError(
            f"{path}: cannot be read: {error.strerror}.", fix="Give the JSON file that equiv run wrote."
        ) from error
