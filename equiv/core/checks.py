"""The checks that are made of every candidate: what each is called and asks. One line per check.

A check is added by its line here and by its module, `equiv/comparison/checks/<name>.py`, which
`equiv.comparison.checks` loads. Reports, the pytest plugin and the README follow this list.
"""

from dataclasses import dataclass

from equiv.errors import EquivError


@dataclass(frozen=True)
class CheckKind:
    """One check.

    Attributes:
        name: also that of its module.
        question: what it asks.
        of_each_port: whether it asks it of each port by itself, and does not compare two.
    """

    name: str
    question: str
    of_each_port: bool = False


CHECK_KINDS = (
    CheckKind("structure", "the same leaves, shapes, dtypes, and the paths that the guide prints?"),
    CheckKind("randomness", "the same number and shape of draws, and new ones in every layer and step?"),
    CheckKind("outputs", "the same outputs of every public method, in every mode?"),
    CheckKind("gradients", "the same loss and gradient of every parameter and every float input?"),
    CheckKind("state", "the same state after every call, and the same eval mode after training?"),
    CheckKind("train", "the same parameters, state and optimizer state after each train step?"),
    CheckKind("invariance", "the same outputs of rows alone, and without padding, as in the batch?", True),
    CheckKind("sharding", "the same sharding of every leaf, and the same numbers on every mesh of the case?"),
    CheckKind("compiled", "the same numbers from each port with its calls and step compiled as users do?", True),
)
"""In the order of reports: an earlier failure explains the later ones, and one in the first blocks them."""

CHECK_NAMES = tuple(kind.name for kind in CHECK_KINDS)

STRUCTURE = CHECK_NAMES[0]
"""The check that is always made: what is compared are the leaves that it finds."""


INVARIANCE = "invariance"
"""The check that is made only where a case declares something for it."""


def read_checks(given: str) -> tuple[str, ...]:
    """Read names of checks between commas, as `--checks` has them.

    Raises:
        EquivError: one is no check.
    """
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names or not set(names) <= set(CHECK_NAMES):
        unknown = next((name for name in names if name not in CHECK_NAMES), "")
        what = f"there is no check {unknown!r}" if unknown else "it names none"
        raise EquivError(f"--checks {given!r}: {what}.", fix=f"Name some of {', '.join(CHECK_NAMES)}.")
    return names


def left_out_checks(asked: tuple[str, ...] | None) -> tuple[str, ...]:
    """The checks that are not made, where only some are asked for; None: all are."""
    return () if asked is None else tuple(name for name in CHECK_NAMES if name not in (STRUCTURE, *asked))


COMPARING_CHECKS = tuple(kind.name for kind in CHECK_KINDS if not kind.of_each_port)
