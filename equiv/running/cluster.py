"""Run cases on a Dask cluster, whatever it is made of: local, SSH, Slurm, Kubernetes.

On a worker of the cluster each case has a process of its own, with the limits that it has on one machine: what ends
that process is the case's error. Where the worker itself is lost, the scheduler gives its cases to another one.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from uuid import uuid4

from equiv.core.join_runs import broken_case, single_case_run
from equiv.errors import EquivError, error_summary
from equiv.running.case_process import CaseProcess
from equiv.running.case_runner import CaseRunner
from equiv.running.task import CaseAnswer, CaseTask, Limits

CONNECT_SECONDS = 30

POLL_SECONDS = 1.0
"""Time between two questions to the scheduler whether the run was stopped."""

_runners: dict[int, tuple[str, CaseRunner]] = {}
"""Thread of a worker to its run and its runner, whose process stays for the next case."""


def run_on_cluster(
    tasks: Sequence[CaseTask], address: str, limits: Limits, progress: Callable[[str], None]
) -> Generator[CaseAnswer, None, None]:
    """Run cases and yield their answers as they come; what is left when the iterator is closed is stopped.

    Args:
        tasks: the cases. Workers read the same files by the same paths.
        address: of the scheduler.
        limits: of each case.
        progress: called with a text for every stage, from another thread.

    Raises:
        EquivError: there is no such scheduler, or the extra is not installed.
    """
    try:
        from distributed import Client, Event, KilledWorker, as_completed
    except ImportError as missing:
        raise EquivError(
            f"--scheduler needs {missing.name}, which is not installed.", fix="Install equiv[cluster]."
        ) from missing
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        why = error_summary(error)
        raise EquivError(
            f"--scheduler {address}: no scheduler answers: {why}.", fix="Start one: dask scheduler."
        ) from error
    run = f"equiv-{uuid4().hex}"
    stop = Event(run, client=client)
    try:
        progress(f"waiting for workers of {address}")
        client.subscribe_topic(run, lambda event: progress(str(event[1])))
        futures = {
            client.submit(run_remotely, task, limits, run, pure=False, key=f"{run}-{n}"): task
            for n, task in enumerate(tasks)
        }
        for future in as_completed(futures, loop=client.loop):
            task = futures[future]
            error = future.exception()
            if error is None:
                yield future.result()
            elif isinstance(error, EquivError):
                raise error
            else:
                problem = f"the cluster could not run it: {error_summary(error)}. Look at the logs of its workers."
                if isinstance(error, KilledWorker):
                    problem = "every worker of the cluster that ran it was lost. Look at the logs of its workers."
                yield CaseAnswer(task.name, single_case_run(broken_case(task.name, problem), {}))
            future.release()
    finally:
        stop.set()
        client.run(close_runners, run, on_error="ignore")
        client.close()


def run_remotely(task: CaseTask, limits: Limits, run: str) -> CaseAnswer:
    """Run one case on a worker of the cluster, in a process of its own.

    Args:
        task: the case.
        limits: of the case.
        run: name of the topic for stages, and of the event that stops the run.

    Raises:
        NotRun: JAX finds no device.
        Stopped: the run was stopped.
    """
    from distributed import Event, get_worker

    # Processes of a nanny are daemons, which may have no children; ours ends with its parent all the same.
    multiprocessing.current_process().daemon = False
    known, runner = _runners.get(threading.get_ident(), ("", None))
    if runner is None or known != run:
        if runner is not None:
            runner.close()
        worker, stop = get_worker(), Event(run)
        report, stopped = partial(worker.log_event, run), ask_seldom(lambda: bool(stop.is_set()))
        runner = CaseRunner(partial(CaseProcess, limits, report, stopped))
        _runners[threading.get_ident()] = (run, runner)
    return runner.run_one(task)


def close_runners(run: str) -> None:
    """End the processes of a run that wait for more."""
    for thread, (name, runner) in list(_runners.items()):
        if name == run:
            runner.close()
            _runners.pop(thread, None)


def ask_seldom(ask: Callable[[], object]) -> Callable[[], bool]:
    """Ask no more often than every `POLL_SECONDS`, and say in between what was said last."""
    last, said = time.monotonic(), False

    def answer() -> bool:
        nonlocal last, said
        if time.monotonic() - last > POLL_SECONDS:
            last, said = time.monotonic(), bool(ask())
        return said

    return answer
