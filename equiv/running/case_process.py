"""A process that runs cases one after another, within limits: `concurrent.futures` with one worker.

A pool of several workers is broken as a whole when one of them dies, and does not say which task was its end (Python
3.11, `concurrent/futures/process.py`, `terminate_broken`; likewise loky 3.7, `process_executor.py`). With one worker in
each pool the task is known, and the other pools go on.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from equiv.running.task import Limits
from equiv.running.worker import EncodedAnswer, start_worker

POLL_SECONDS = 0.1
"""Time between two looks at the limits."""

EXIT_SECONDS = 5
"""Time for the system to say how a process ended."""

GIGABYTE = 1e9

_starting = threading.Lock()
"""Held while a process is started, so that the new one is known."""


class Ended(Exception):
    """The process of a case has ended, or was ended.

    Attributes:
        problem: what happened, and what helps.
        by_time: whether it was too slow; otherwise what its process did before may have been the cause.
    """

    def __init__(self, problem: str, by_time: bool = False) -> None:
        super().__init__(problem)
        self.problem, self.by_time = problem, by_time


class Stopped(Exception):
    """The run as a whole was stopped."""


class CaseProcess:
    """One process, and what it is given to do."""

    def __init__(
        self,
        limits: Limits,
        progress: Callable[[str], None],
        stopped: Callable[[], bool],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            limits: of every case.
            progress: called with a text for every stage.
            stopped: asked now and then whether the run as a whole was stopped.
            variables: of its environment, besides those that it has from this process.
        """
        self._limits, self._progress, self._stopped = limits, progress, stopped
        self._last_stage, self._process = "", None
        self._answer: EncodedAnswer | None = None
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of JAX hold
        self._messages, sender = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=start_worker, initargs=(sender, dict(variables or {}))
        )
        with _starting:
            before = set(multiprocessing.active_children())
            self._pool.submit(os.getpid)  # the process is started with the first task
            self._process = next(iter(set(multiprocessing.active_children()) - before), None)
        sender.close()  # so that the end of the process is the end of its messages

    def call(self, function: Callable[..., Any], *arguments: Any, spent: float | None = 0.0) -> Any:
        """Call a function in the process, and raise what it raises.

        Args:
            function: one of `equiv.running.worker`.
            arguments: of it.
            spent: seconds that the case has taken already; None: it may take any time.

        Raises:
            Ended: the process has ended, or was ended at a limit.
            Stopped: the run was stopped.
        """
        try:
            future = self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            raise self._describe_end() from None
        return self._wait(future, None if spent is None else self._limits.seconds, spent or 0.0)

    def take_answer(self) -> EncodedAnswer:
        """The answer that a case has given when it was finished."""
        answer, self._answer = self._answer, None
        assert answer is not None
        return answer

    def end(self) -> None:
        """End the process, whatever it is doing: it has nothing to save."""
        if self._process is not None:
            with suppress(ValueError, OSError):
                self._process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._messages.close()

    def _wait(self, future: Future[Any], seconds: float | None, spent: float) -> Any:
        clock = time.monotonic() - spent
        while not wait([future], timeout=POLL_SECONDS).done:
            self._read_messages()
            if self._stopped():
                raise Stopped
            if seconds is not None and time.monotonic() - clock > seconds:
                why = f"it was stopped after {seconds:g} s{self._place()}"
                raise Ended(f"{why}. Give it more time with --timeout, or less to do.", by_time=True)
            used, most = self._memory(), self._limits.memory
            if most is not None and used > most:
                why = f"it was stopped at {used / GIGABYTE:.2f} GB of memory, of at most {most / GIGABYTE:.2f}"
                raise Ended(f"{why}{self._place()}. Give it more with --memory, or a smaller batch.")
        self._read_messages()
        try:
            return future.result()
        except BrokenProcessPool:
            raise self._describe_end() from None

    def _read_messages(self) -> None:
        """Take what the process has sent since; a message that its end has cut off is left out."""
        with suppress(EOFError, OSError):
            while self._messages.poll():
                message = self._messages.recv()
                if isinstance(message, str):
                    self._last_stage = message
                    self._progress(message)
                else:
                    self._answer = message

    def _memory(self) -> int:
        """Resident bytes of the process; 0 where it has ended, which is noticed elsewhere."""
        if self._limits.memory is None or self._process is None or self._process.pid is None:
            return 0
        try:
            return psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:
            return 0

    def _place(self) -> str:
        return f", last at {self._last_stage!r}" if self._last_stage else ""

    def _wait_for_exit_code(self) -> int | None:
        """The exit code of the process, which has ended; None where the system does not say."""
        process: BaseProcess | None = self._process
        end = time.monotonic() + EXIT_SECONDS
        # The thread of the pool waits for the process too; the one that comes second knows it a moment later.
        while process is not None and process.exitcode is None and time.monotonic() < end:
            time.sleep(0.01)
        return None if process is None else process.exitcode

    def _describe_end(self) -> Ended:
        """Say how the process ended."""
        code = self._wait_for_exit_code()
        if code is None:
            how, fix = "its process ended", "Run it alone, with --no-isolate, and look at what it prints."
        elif code >= 0:
            how = f"its process exited with code {code}"
            fix = "A case must not end the program that runs it: look for os._exit and the like."
        else:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else "a signal"
            how = f"its process was ended by {name} (signal {-code})"
            fix = "Run it alone, with --no-isolate, and look at what it prints."
            if -code == signal.SIGKILL:
                fix = "If nobody sent it, the machine was out of memory: run fewer at once (-n), bound each (--memory)."
        return Ended(f"{how}{self._place()}. {fix}")
