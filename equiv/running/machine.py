"""Run cases in several processes of this machine."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from queue import SimpleQueue

from equiv.core.case_files import CASES_AHEAD
from equiv.running.case_process import CaseProcess, Stopped
from equiv.running.case_runner import CaseRunner
from equiv.running.compile_cache import keep_compiled
from equiv.running.devices import gpus_here, share_devices
from equiv.running.task import CaseAnswer, CaseTask, Limits


def run_on_machine(
    tasks: Sequence[CaseTask], jobs: int, limits: Limits, progress: Callable[[str], None]
) -> Generator[CaseAnswer, None, None]:
    """Run cases and yield their answers as they come; what is left when the iterator is closed is ended.

    Args:
        tasks: the cases.
        jobs: number of processes.
        limits: of each case.
        progress: called with a text for every stage, from several threads.

    Raises:
        NotRun: JAX finds no device.
    """
    pending, answers = deque(tasks), SimpleQueue[CaseAnswer | BaseException]()
    stop = threading.Event()
    jobs = min(jobs, len(tasks))

    def run_some(number: int) -> None:
        with keep_compiled() as kept:
            variables = share_devices(number, os.environ, gpus_here()) if jobs > 1 else {}
            runner = CaseRunner(partial(CaseProcess, limits, progress, stop.is_set, kept | variables))
            try:
                runner.run_all(lambda: _next_task(pending, stop), CASES_AHEAD if jobs == 1 else 0, answers.put)
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - raised where the answers are taken
                answers.put(error)
            finally:
                runner.close()

    threads = [threading.Thread(target=run_some, args=(number,), daemon=True) for number in range(jobs)]
    for thread in threads:
        thread.start()
    # One process alone has several cases at a time; of several each has one, as processors are busy then anyway.
    try:
        for _ in tasks:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _next_task(pending: deque[CaseTask], stop: threading.Event) -> CaseTask | None:
    try:
        return None if stop.is_set() else pending.popleft()
    except IndexError:
        return None
