"""Compiled programs that are kept between runs, so that what has not changed is not compiled again.

JAX keeps an executable under a digest of the program, of the compiler's options, its release, its flags and the device.
equiv keeps these below `equiv/compiled` in `XDG_CACHE_HOME`, or in `~/.cache`, in a folder for each installation:
Python, every package, the settings of JAX, equiv's own sources, the processor. Nothing else is kept: every program is
traced, proved and run again, and no verdict is taken over. A process gets a copy of its own, as JAX writes in place;
what it adds is kept when it has ended, under a name with a digest of its bytes, and what no longer has that digest is
removed.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from equiv.running.installation import digest_installation

ASKED = "EQUIV_CACHE"
"""Environment variable; with `0` nothing is kept."""

OWN_SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
"""Environment variables of users who decide for themselves."""

SUFFIX = "-cache"
"""Of the files that JAX writes (jax 0.10.2, `lru_cache.py`)."""

MOST_BYTES = 2**26
"""Of one installation; what was added first is removed first."""

PREFIX = "equiv-compiled-"
"""Of the folder of one process."""

LEFT_OVER = 86400.0
"""Seconds after which the folder of a process that was killed is removed."""

MOST_DAYS = 30
"""After which the folder of an installation that was not used is removed."""


@contextmanager
def keep_compiled() -> Iterator[dict[str, str]]:
    """Make a copy of what is kept for one process, and keep what it has added at the exit.

    Yields:
        Environment variables of that process, set before JAX is imported; none where nothing is kept.
    """
    left_alone = os.environ.get(ASKED) == "0" or any(name in os.environ for name in OWN_SETTINGS)
    folder = None if left_alone else _open_folder()
    own = None if folder is None else _copy_kept(folder)
    if folder is None or own is None:
        yield {}
        return
    try:
        yield {
            "JAX_COMPILATION_CACHE_DIR": str(own),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",  # their folder would be part of every key
        }
    finally:
        with suppress(OSError):
            _keep_new(own, folder)
        shutil.rmtree(own, ignore_errors=True)


@contextmanager
def keep_compiled_here() -> Iterator[None]:
    """Keep what this process compiles, unless it has imported JAX already, which has read its settings then."""
    if "jax" in sys.modules:
        yield
        return
    with keep_compiled() as variables:
        os.environ.update(variables)
        yield


def _open_folder() -> Path | None:
    """The folder of this installation, without those that nobody uses; None: it is not this user's alone to write."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    every = (Path(given) if given else Path.home() / ".cache") / "equiv" / "compiled"
    name = hashlib.sha256(f"{digest_installation()} {_describe_processor()}".encode()).hexdigest()[:32]
    try:
        (every / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        found = (every / name).stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:  # executables of others are not run
            return None
        os.utime(every / name)
        for other in every.iterdir():
            if other.name != name and time.time() - other.stat().st_mtime > MOST_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
    except (OSError, AttributeError):  # a full disk, or a system without users
        return None
    return every / name


def _describe_processor() -> str:
    """What the processor can do, as Linux says it; an executable runs on no lesser one."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return " ".join(sorted({one for one in lines if one.lower().startswith(("flags", "features", "model name"))}))
    return ""


def _copy_kept(folder: Path) -> Path | None:
    """Copy what still has its digest, the newest first, up to the limit, and remove the rest; None: a disk is full."""
    own, left = None, MOST_BYTES
    _remove_left_over()
    try:
        own = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        for path in sorted(folder.iterdir(), key=_time_added, reverse=True):
            name, _, wanted = path.name.rpartition(".")
            data = _read(path)
            left -= len(data)
            if left < 0 or hashlib.sha256(data).hexdigest() != wanted:
                path.unlink(missing_ok=True)
            else:
                (own / name).write_bytes(data)
    except OSError:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
        return None
    return own


def _remove_left_over() -> None:
    """Remove the folders of processes that were killed; those of other users cannot be removed, and stay."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        process = path.name.removeprefix(PREFIX).partition("-")[0]
        if time.time() - _time_added(path) > LEFT_OVER and not (process.isdigit() and _is_running(int(process))):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # another process has removed it
        return b""


def _time_added(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _keep_new(own: Path, folder: Path) -> None:
    """Keep every whole file that was added, each under its digest."""
    kept = {path.name.rpartition(".")[0]: path for path in folder.iterdir()}
    for path in own.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            data = path.read_bytes()
            if path.name not in kept and _is_whole(data):
                scratch = folder / f"{path.name}.{os.getpid()}"
                scratch.write_bytes(data)
                scratch.replace(folder / f"{path.name}.{hashlib.sha256(data).hexdigest()}")


def _is_whole(data: bytes) -> bool:
    """Whether a process that was killed had finished writing it; with another compression than zlib it is not known."""
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True
