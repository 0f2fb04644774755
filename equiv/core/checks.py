"""The checks that are made of every candidate: what each is called and asks. One line per check.

A check is added by its line here and by its module, `equiv/comparison/checks/<name>.py`, which
`equiv.comparison.checks` loads. Reports, the pytest plugin and the README follow this list.
"""

from dataclasses import dataclass


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
    CheckKind("compiled", "the same numbers from each port with its calls and step compiled as users do?", True),
)
"""In the order of reports: an earlier failure explains the later ones, and one in the first blocks them."""

CHECK_NAMES = tuple(kind.name for kind in CHECK_KINDS)

COMPARING_CHECKS = tuple(kind.name for kind in CHECK_KINDS if not kind.of_each_port)
