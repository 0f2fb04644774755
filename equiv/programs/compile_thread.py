"""Background threads for compilation: XLA releases the GIL while it compiles."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from equiv.programs.freed_memory import return_freed_memory

T = TypeVar("T")

_LONG_JOBS = ThreadPoolExecutor(1, thread_name_prefix="equiv-compile")

_SHORT_JOBS = ThreadPoolExecutor(1, thread_name_prefix="equiv-compile-short")
"""One thread each: XLA parallelises a compilation itself. Short jobs have a thread of their own."""


def run_in_background(function: Callable[[], T], short: bool = False) -> Callable[[], T]:
    """Run a function in a background thread, in submission order.

    Args:
        function: the function to run.
        short: whether it is quick and its result is needed soon; it then runs in a thread of its own.

    Returns:
        A function that waits for the result, and raises what `function` raised.
    """

    def run() -> T:
        try:
            return function()
        finally:
            return_freed_memory()

    return (_SHORT_JOBS if short else _LONG_JOBS).submit(run).result
