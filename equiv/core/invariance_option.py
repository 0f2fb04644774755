"""Invariances as a command line names them: read without numpy, so that a wrong one is said at once."""

from equiv.core.case import BatchInvariance, Padding
from equiv.errors import EquivError

BATCH, PADDING = "batch", "padding"
"""The invariances that a command line names; of padding the mask stands behind a colon."""


def read_invariance(text: str) -> BatchInvariance | Padding:
    """Read an invariance as `--invariant` has it: `batch`, `padding:mask`, or `padding:mask=0` where 0 is valid.

    Raises:
        EquivError: it is none of these.
    """
    kind, colon, mask = (part.strip() for part in text.partition(":"))
    name, equals, valid = (part.strip() for part in mask.partition("="))
    problem = ""
    if kind not in (BATCH, PADDING):
        problem = f"there is no invariance {kind!r}"
    elif kind == BATCH and colon:
        problem = f"batch takes no input, and {mask!r} is given"
    elif kind == PADDING and not name:
        problem = "padding names no mask"
    elif kind == PADDING and equals and valid not in ("0", "1"):
        problem = f"the valid positions of a mask are 0 or 1, and {valid!r} is given"
    if problem:
        raise EquivError(
            f"--invariant {text!r}: {problem}.",
            fix="Write batch, padding:mask with the name of an input, or padding:mask=0 where 0 marks what is valid.",
        )
    return BatchInvariance() if kind == BATCH else Padding(name, valid != "0")
