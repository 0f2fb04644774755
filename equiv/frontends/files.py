"""Write files."""

from pathlib import Path

from equiv.errors import EquivError


def write_file(path: Path, data: bytes, fix: str) -> None:
    """Write a file, and create its parent folders.

    Raises:
        EquivError: it cannot be written; `fix` says what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise EquivError(f"{path}: cannot be written: {error.strerror}.", fix=fix) from error
