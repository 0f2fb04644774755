"""Write files."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from equiv.errors import EquivError


def write_file(path: Path, data: bytes, fix: str) -> None:
    """Write a file as a whole or not at all, and create its parent folders: what was there before stays until then.

    What is no ordinary file, such as `/dev/stdout`, is written as it is.

    Raises:
        EquivError: it cannot be written; `fix` says what to do.
    """
    try:
        target = path.resolve()  # a link stays one
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() or (target.exists() and not os.access(target, os.W_OK)):
            target.open("ab").close()  # says why not
        _replace_file(target, data)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a zero byte; RuntimeError: links in a circle
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EquivError(f"{path}: cannot be written: {why}.", fix=fix) from error


def _replace_file(target: Path, data: bytes) -> None:
    scratch = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a disk may say only now that it is full
        if target.exists():
            shutil.copymode(target, scratch)
        scratch.replace(target)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
