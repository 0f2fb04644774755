"""Errors that a user can fix: each says who, what, where, both values, and the fix."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any


class EquivError(Exception):
    """Base class of every error that this package raises on purpose; its message is meant for the user.

    Args:
        problem: who, what, where, and both values.
        fix: the sentence that says what to do, which ends the message; empty: the problem says it all.
        port: name of the port that it is about; empty: none, or several.
        leaf: the leaf that it is about, as the message names it; likewise.

    Attributes:
        problem, fix, port, leaf: likewise.
    """

    def __init__(self, problem: str = "", *, fix: str = "", port: str = "", leaf: str = "") -> None:
        super().__init__(f"{problem} {fix}" if fix else problem)
        self.problem, self.fix, self.port, self.leaf = problem, fix, port, leaf

    def __reduce__(self) -> Any:
        """What pickle keeps: pytest-xdist sends errors from one process to another."""
        return _restore_error, (type(self), str(self), dict(vars(self)))


def _restore_error(kind: type[EquivError], message: str, attributes: dict[str, Any]) -> EquivError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    vars(error).update(attributes)
    return error


class CaseError(EquivError):
    """A case, a builder or a layer table is invalid."""


class NotRun(EquivError):
    """A port could not be run here, through no fault of its own: a library or device is missing."""


class PortError(EquivError):
    """A port was built but cannot be traced, loaded or run."""


def error_summary(error: BaseException) -> str:
    """Summarise an exception that is not ours in one line: its type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A message that contains a traceback (XLA, for an exception in a callback) names the cause in its last line.
    first = (lines[-1] if "Traceback (most" in str(error) else lines[0]) if lines else ""
    short = first if len(first) <= 300 else f"{first[:300]} ..."
    return f"{type(error).__name__}: {short}".removesuffix(": ").removesuffix(".")


def user_code_location(error: BaseException, otherwise: str) -> str:
    """`FILE:LINE` of the deepest frame of an exception's traceback that is the user's own code.

    Args:
        error: the exception, as caught.
        otherwise: returned if no frame is the user's own code.
    """
    paths = sysconfig.get_paths()
    libraries = (paths["stdlib"], paths["purelib"], paths["platlib"], str(Path(__file__).parent), "<")
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    user_frames = [f"{name}:{line}" for name, line in frames if not name.startswith(libraries)]
    return user_frames[-1] if user_frames else otherwise
