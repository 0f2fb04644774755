"""Symbols of objects that have no content to compare: which object it is, or nothing that equals anything else."""

import functools
import itertools
import os
import secrets
import weakref
from collections.abc import Callable
from typing import Any

Symbol = tuple[Any, ...]
"""Plain data, as `equiv.programs.content` reads it."""

_PROCESS_TOKEN = secrets.token_hex(16)

_SERIAL_NUMBERS = itertools.count()

_NUMBERED: dict[int, tuple[Callable[[], Any], int]] = {}
"""Address to what still refers to the object there, and its number."""


def _in_this_process(*parts: Any) -> Symbol:
    # A frozen reference takes names to another process. A fork has its parent's token, but not its number.
    return (*parts, _PROCESS_TOKEN, os.getpid())


def fresh_symbol() -> Symbol:
    """Make a symbol that equals no other, in no other process either."""
    return _in_this_process("fresh", next(_SERIAL_NUMBERS))


def name_object(value: Any) -> Symbol:
    """Name an object by its identity: no other object ever has its symbol, in no other process either."""
    known = _NUMBERED.get(id(value))
    if known is None or known[0]() is not value:
        try:
            reference = weakref.ref(value)
        except TypeError:
            # Kept alive, since another object could get its address.
            reference = functools.partial(_return_object, value)
        known = _NUMBERED[id(value)] = reference, next(_SERIAL_NUMBERS)
    return _in_this_process("object", known[1])


def _return_object(value: Any) -> Any:
    return value
