"""What a planted fault is: a change in the text of a case, and who must find it where."""

from dataclasses import dataclass
from pathlib import Path

OWN_CASES = {path.stem: path for path in sorted((Path(__file__).parent / "planted_faults" / "cases").glob("*.py"))}
"""Models that the suite does not have: with square kernels, with gates of one shape."""

EVAL, TRAIN, CALL, STEP = "eval __call__: output", "train __call__: output", "call __call__: output", "train: "

TRAIN_ONLY = "structure outputs gradients"
"""Same function, different training."""

LINEN_DROPOUT = "x = nn.Dropout(0.5, deterministic=not training)(x)"
NNX_BIAS = "return x @ self.w + self.b"
"""Lines of cases that faults of several groups change."""


@dataclass(frozen=True)
class Fault:
    """One planted fault: where, what changes, and who must find it.

    Attributes:
        name: of the test.
        case: of the suite, or of `OWN_CASES`.
        candidate: the port that is at fault.
        changes: `(old, new)` texts.
        check: the check that must find it.
        place: the `Finding.place` that must be among what that check refuses.
        clean: the checks that must not find it.
    """

    name: str
    case: str
    candidate: str
    changes: tuple[tuple[str, str], ...]
    check: str
    place: str
    clean: tuple[str, ...] = ()


def fault(name: str, target: str, change: tuple[str, ...], check: str, place: str, clean: str = "") -> Fault:
    """A row of the table.

    Args:
        name: of the test.
        target: `case/candidate`.
        change: old, new, old, new, ...
        check: who must find it.
        place: where.
        clean: who must not, as words.
    """
    case, candidate = target.split("/")
    return Fault(
        name, case, candidate, tuple(zip(change[::2], change[1::2], strict=True)), check, place, tuple(clean.split())
    )
