"""Errors of libraries whose message does not say what to change in a model that is compared: the fix for each."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownError:
    """An error and its fix.

    Attributes:
        pattern: of its message.
        fix: the match to the sentence that says what to do.
    """

    pattern: str
    fix: Callable[[re.Match[str]], str]


def _argument_fix(found: re.Match[str]) -> str:
    call = f"'{found['method'] or '__call__'}(..., {found['name']}=...)'"
    return f"Say what {found['name']} is, an input or a constant: --method {call}, in a case methods=({call},)."


KNOWN_ERRORS = (
    # dm-haiku 0.0.17, `haiku/_src/module.py`.
    KnownError(
        "must be initialized inside an `hk.transform`",
        lambda _: "Make modules in a function that is transformed: return hk.transform(lambda x: Model()(x)).",
    ),
    # flax 0.12.8, `flax/errors.py`: what is made outside of a step cannot be changed in it.
    KnownError(
        "Cannot mutate .* from a different trace level",
        lambda _: (
            "If train_step changes what it takes from around it, such as an optimizer, make that an argument, and "
            "return (model, train_step, create): create(model) makes the argument optimizer."
        ),
    ),
    # Python's own words for a call that lacks an argument; of a constructor the model itself is at fault.
    KnownError(
        r"(?:^|[\s.])(?:(?P<method>(?!__init__)\w+)|<lambda>)\(\) missing \d+ required "
        r"(?:positional|keyword-only) arguments?: '(?P<name>\w+)'",
        _argument_fix,
    ),
)
"""In the order in which they are tried."""


def known_fix(error: BaseException) -> str:
    """The fix of an error, with a blank after it; empty where none is known."""
    text = str(error)
    found = ((one, re.search(one.pattern, text)) for one in KNOWN_ERRORS)
    return next((f"{one.fix(match)} " for one, match in found if match is not None), "")
