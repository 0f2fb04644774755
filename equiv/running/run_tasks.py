"""Run cases to one result: what the journal has already is taken from there, the rest is run where it was asked for."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from equiv.core.join_runs import broken_case, single_case_run
from equiv.core.results import RunResult
from equiv.errors import EquivError
from equiv.running.journal import Journal
from equiv.running.machine import run_on_machine
from equiv.running.task import CaseAnswer, CaseTask, Limits
from equiv.running.worker import run_here

INTERRUPTED = "not run: interrupted. Go on with --resume."


@dataclass(frozen=True)
class Place:
    """Where cases are run.

    Attributes:
        isolated: in processes of their own; otherwise in this one, which nothing can stop but its end.
        jobs: number of processes on this machine.
        scheduler: address of the scheduler of a Dask cluster, such as `tcp://HOST:8786`; empty: this machine.
        limits: of each case; without isolation there are none.
    """

    isolated: bool = True
    jobs: int = 1
    scheduler: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Listener:
    """What is called while cases are run.

    Attributes:
        progress: with a text for every stage.
        finished: with every answer; of cases that are taken from the journal, too.
        counted: with the number of cases, and how many of them are taken from the journal.
    """

    progress: Callable[[str], None]
    finished: Callable[[CaseAnswer], None]
    counted: Callable[[int, int], None]


def run_tasks(
    tasks: Sequence[CaseTask], place: Place, journal: Journal, resume: bool, listener: Listener
) -> list[RunResult]:
    """Run cases and return the run of each, in the order given. An interrupt keeps what is finished.

    Args:
        tasks: the cases.
        place: where they are run.
        journal: gets every result as soon as it is there.
        resume: whether to take what it has.
        listener: gets what happens.

    Raises:
        EquivError: JAX finds no device, there is no such cluster, or options exclude each other.
    """
    found: dict[str, RunResult] = {}
    if resume:
        found = {task.name: run for task in tasks if (run := journal.read(task)) is not None}
    listener.counted(len(tasks), len(found))
    for name, run in found.items():
        listener.finished(CaseAnswer(name, run))
    left = [task for task in tasks if task.name not in found]
    by_name = {task.name: task for task in left}
    try:
        for task in left:
            journal.begin(task)
        with _open_answers(left, place, listener.progress) as answers:
            for answer in answers:
                found[answer.name] = answer.run
                listener.finished(answer)
                journal.write(by_name[answer.name], answer.run)
    except KeyboardInterrupt:
        pass
    return [found.get(task.name) or single_case_run(broken_case(task.name, INTERRUPTED), {}) for task in tasks]


@contextmanager
def _open_answers(
    tasks: Sequence[CaseTask], place: Place, progress: Callable[[str], None]
) -> Iterator[Generator[CaseAnswer, None, None]]:
    """Run cases; at the exit what still runs is ended."""
    if not tasks:
        yield (answer for answer in list[CaseAnswer]())
        return
    if place.scheduler:
        from equiv.running.cluster import run_on_cluster  # an extra

        answers = run_on_cluster(tasks, place.scheduler, place.limits, progress)
    elif place.isolated:
        answers = run_on_machine(tasks, place.jobs, place.limits, progress)
    elif place.limits != Limits():
        raise EquivError("--timeout and --memory need processes of their own.", fix="Leave out --no-isolate.")
    else:
        answers = run_here(tasks, progress)
    with closing(answers):
        yield answers
