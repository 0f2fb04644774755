"""What runs in the process of a case. JAX is imported there only."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from equiv.core.join_runs import broken_case
from equiv.core.results import CaseResult
from equiv.core.results_json import encode_results
from equiv.errors import EquivError, error_summary
from equiv.running.task import CaseAnswer, CaseTask, TaskOptions

T = TypeVar("T")

GC_THRESHOLDS = 200_000, 50, 100
"""Thresholds of the garbage collector: traced programs are many small objects that stay; with Python's own
thresholds, collection takes a tenth of the time of tracing and proving."""

EncodedAnswer = tuple[bytes, tuple[tuple[str, Any], ...]]
"""The run of one case as JSON, and its certificates."""

_begun: dict[str, Callable[[], EncodedAnswer]] = {}
"""Case to what finishes it."""

_senders: list[Connection] = []
"""Gets stages as texts, and answers."""

_telling = threading.Lock()


def start_worker(sender: Connection, variables: Mapping[str, str]) -> None:
    """Make this process one that runs cases.

    What is printed goes to standard error, which is no part of the results. An interrupt from the keyboard reaches
    every process of a terminal; the one that the user started ends the others. Where that one is killed, this ends.

    Args:
        sender: gets a text for every stage, and answers.
        variables: of the environment, set before JAX starts.
    """
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.set_threshold(*GC_THRESHOLDS)
    os.dup2(2, 1)  # also for what is not printed by Python
    sys.stdout = sys.stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _senders.append(sender)


def _send(message: str | EncodedAnswer) -> None:
    with _telling:
        for sender in _senders:
            sender.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def describe_worker() -> dict[str, str]:
    """The environment in which this process runs cases.

    Raises:
        NotRun: JAX finds no device.
    """
    _send("importing jax")
    from equiv.backends.environment import describe_environment

    return describe_environment()


def begin_case(task: CaseTask) -> None:
    """Do what of a case needs no compiled program, and start to compile: the next one can begin meanwhile."""
    _begun[task.name] = start_task(task, _send)


def finish_case(name: str) -> None:
    """Finish a case that has begun, and send its answer.

    It is not returned: where a process is killed while it returns something large, the thread of its pool waits for the
    rest without an end (Python 3.11, `concurrent/futures/process.py`), as it holds the other end of that pipe itself.
    """
    _send(_begun.pop(name)())


def start_task(task: CaseTask, progress: Callable[[str], None]) -> Callable[[], EncodedAnswer]:
    """Start a case, and return the function that finishes it; whatever a case raises is its result.

    Args:
        task: the case.
        progress: called with a text for every stage.
    """
    from equiv.comparison.pipeline import make_run_result, start_file

    certificates: list[tuple[str, Any]] = []
    started = datetime.now(UTC)

    def guard(function: Callable[[], T]) -> T | CaseResult:
        try:
            return function()
        except EquivError as error:
            problem = str(error)
        except KeyboardInterrupt as error:  # nobody can interrupt this process: the case has raised it
            problem = f"it raised {error_summary(error)}. A case must not end the program that runs it: take that out."
        return broken_case(task.name, problem)

    begun = guard(lambda: start_file(task.file, progress, run_options(task.options, certificates)))

    def finish() -> EncodedAnswer:
        result = begun if isinstance(begun, CaseResult) else guard(begun)
        return encode_results(make_run_result([result], started, result.seconds)), tuple(certificates)

    return finish


def run_options(given: TaskOptions, certificates: list[tuple[str, Any]]) -> Any:
    """The options of the pipeline.

    Args:
        given: those of the run.
        certificates: gets candidate and certificate of its proofs, where they are wanted.

    Raises:
        EquivError: the frozen reference cannot be used.
    """
    from equiv.comparison.pipeline import RunOptions

    def keep(case: str, candidate: str, certificate: Any) -> None:
        certificates.append((candidate, certificate))

    if given.against is not None:
        return RunOptions(against=read_reference(given.against), checks=given.checks)
    certified = keep if given.certificates else None
    return RunOptions(given.prove_only, given.selfcheck, given.initial, certified=certified, checks=given.checks)


@lru_cache(maxsize=1)
def read_reference(path: Path) -> Any:
    """Read a frozen reference.

    Raises:
        EquivError: it cannot be read, or is no reference.
    """
    from equiv.comparison.frozen.bundle import read_bundle
    from equiv.comparison.frozen.sanity import refuse_senseless

    frozen = read_bundle(path)
    refuse_senseless(frozen, str(path))
    return frozen


def run_here(tasks: Sequence[CaseTask], progress: Callable[[str], None]) -> Generator[CaseAnswer, None, None]:
    """Run cases in this process, and yield their answers in order.

    Args:
        tasks: the cases, all with the same options.
        progress: called with a text for every stage.

    Raises:
        EquivError: JAX finds no device, or the frozen reference cannot be used.
    """
    from equiv.backends.environment import describe_environment
    from equiv.comparison.pipeline import make_run_result, run_cases

    describe_environment()  # fails early where there is no device
    certificates: list[tuple[str, Any]] = []
    options = run_options(tasks[0].options, certificates)
    for result in run_cases([task.file for task in tasks], progress, options):
        run = make_run_result([result], datetime.now(UTC), result.seconds)
        yield CaseAnswer(result.name, run, tuple(certificates))
        certificates.clear()
