"""Ctrl-C and SIGTERM, also while the main thread computes in XLA, where Python handles no signal."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_INTERRUPTED = 2

GRACE_SECONDS = 5.0
"""Time for the main thread to notice an interrupt; afterwards the program is ended without it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM, with which job schedulers end a job, is the `KeyboardInterrupt` that Ctrl-C is.

    Python runs its handlers between two instructions of the main thread. While that computes in C, the system's own
    handler still writes the signal to a pipe (`signal.set_wakeup_fd`), where another thread reads it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noticed = threading.Event()

    def interrupt(*_: object) -> None:
        noticed.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, noticed, os._exit), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(writing)  # ends the thread
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reading: int, noticed: threading.Event, end: Callable[[int], None]) -> None:
    """End the program where the main thread does not notice a signal."""
    while number := os.read(reading, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and not noticed.wait(GRACE_SECONDS):
            os.write(2, b"\nequiv: interrupted\n")
            end(EXIT_INTERRUPTED)
    os.close(reading)
