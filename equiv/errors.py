"""Errors a user can mend: each says who, what, where, both values, and the fix."""

import sysconfig
import traceback
from pathlib import Path


class EquivError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for the user."""


class CaseError(EquivError):
    """A case, a builder or a layer table that cannot be used as it stands."""


class NotRun(EquivError):
    """Something could not be run here, through no fault of the port: a library or device is missing."""


class PortError(EquivError):
    """A port that was built but cannot be traced, loaded or run."""


def told(error: BaseException) -> str:
    """What somebody else's error says, in one line: its kind and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A text with a traceback in it (XLA, of what a callback raised) says what happened in its last line.
    first = (lines[-1] if "Traceback (most" in str(error) else lines[0]) if lines else ""
    short = first if len(first) <= 300 else f"{first[:300]} ..."
    return f"{type(error).__name__}: {short}".removesuffix(": ").removesuffix(".")


def place(error: BaseException, otherwise: str) -> str:
    """`FILE:LINE` of the deepest line of the user's own code that an error came through.

    Args:
        error: as caught.
        otherwise: what to say where it came through none.
    """
    paths = sysconfig.get_paths()
    others = (paths["stdlib"], paths["purelib"], paths["platlib"], str(Path(__file__).parent), "<")
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f"{name}:{line}" for name, line in frames if not name.startswith(others)]
    return own[-1] if own else otherwise
