"""Compiling beside the main thread: XLA lets Python go on meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


_LONG = ThreadPoolExecutor(1, thread_name_prefix="equiv-compile")


_SHORT = ThreadPoolExecutor(1, thread_name_prefix="equiv-compile-short")
"""One thread each: XLA spreads a compilation over the cores itself; what is needed at once need not queue."""


def begin(function: Callable[[], Result], short: bool = False) -> Callable[[], Result]:
    """Begin to compute something, in the order asked for; the result waits for it and raises what it raised.

    Args:
        function: what to compute.
        short: it is quickly done and soon waited for.
    """
    return (_SHORT if short else _LONG).submit(function).result
