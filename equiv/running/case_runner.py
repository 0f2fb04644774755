"""Runs cases in one process after another: where one ends, the case that ended it is found, and the others go on."""

import time
from collections import deque
from collections.abc import Callable

from equiv.core.join_runs import broken_case, single_case_run
from equiv.core.results_json import decode_results
from equiv.running.case_process import CaseProcess, Ended
from equiv.running.task import CaseAnswer, CaseTask
from equiv.running.worker import EncodedAnswer, begin_case, describe_worker, finish_case


class CaseRunner:
    """Owns a process, which is reused as long as it lives."""

    def __init__(self, start: Callable[[], CaseProcess]) -> None:
        """Start no process yet; `start` starts one."""
        self._start = start
        self._process: CaseProcess | None = None
        self._environment: dict[str, str] = {}
        self._runs = 0
        """Number of cases that the process has begun."""
        self._begun: deque[tuple[CaseTask, float]] = deque()
        """Cases that have begun, with the seconds that this took."""

    def open_process(self) -> CaseProcess:
        """The process, started where there is none.

        Raises:
            NotRun: JAX finds no device.
            Ended: it has ended before it could run anything.
            Stopped: the run was stopped.
        """
        if self._process is None:
            self._runs = 0
            self._process = self._start()
            self._environment = self._process.call(describe_worker, spent=None)
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
        self._process = None

    def run_all(self, take: Callable[[], CaseTask | None], ahead: int, answer: Callable[[CaseAnswer], None]) -> None:
        """Run cases until there is none left.

        Args:
            take: takes the next one; None where none is left.
            ahead: how many cases begin before the first of them is finished: one compiles while others are traced.
            answer: called with every answer.

        Raises:
            NotRun: JAX finds no device.
            Stopped: the run was stopped.
        """
        again: deque[CaseTask] = deque()
        while True:
            while again:  # alone, so that none of them begins a third time
                answer(self.run_one(again.popleft()))
            while not again and len(self._begun) <= ahead and (task := take()) is not None:
                self._step(task, True, again, answer)
            if self._begun:
                self._step(self._begun[0][0], False, again, answer)
            elif not again:
                return

    def run_one(self, task: CaseTask) -> CaseAnswer:
        """Run one case.

        Raises:
            NotRun: JAX finds no device.
            Stopped: the run was stopped.
        """
        try:
            try:
                return self._run_at_once(task)
            except Ended as end:
                return self._judge_end(task, end)
        except BaseException:
            self.close()
            raise

    def _step(self, task: CaseTask, begins: bool, again: deque[CaseTask], answer: Callable[[CaseAnswer], None]) -> None:
        """Begin a case, or finish the first that has begun; where that ends the process, the others begin again."""
        try:
            if begins:
                self._begun.append((task, self._begin(task)))
            else:
                process = self.open_process()
                process.call(finish_case, task.name, spent=self._begun[0][1])
                self._begun.popleft()
                answer(_decode_answer(task, process.take_answer()))
        except Ended as end:
            others = [one for one, _ in self._begun if one is not task]
            self._begun.clear()
            again.extendleft(reversed(others))
            answer(self._judge_end(task, end, bool(others)))

    def _judge_end(self, task: CaseTask, end: Ended, others: bool = False) -> CaseAnswer:
        """Find out whether a case is what ended the process: alone, in a new one, where that is not clear yet.

        Others that have begun may be the reason, by what they compile; or those before it, by what they left behind.
        """
        used = self._runs > 1
        self.close()
        if others or (used and not end.by_time):
            try:
                return self._run_at_once(task)
            except Ended as again:
                end = again
                self.close()
        return CaseAnswer(task.name, single_case_run(broken_case(task.name, end.problem), self._environment))

    def _run_at_once(self, task: CaseTask) -> CaseAnswer:
        spent, process = self._begin(task), self.open_process()
        process.call(finish_case, task.name, spent=spent)
        return _decode_answer(task, process.take_answer())

    def _begin(self, task: CaseTask) -> float:
        """Begin a case and return how many seconds it took."""
        process, clock = self.open_process(), time.monotonic()
        self._runs += 1
        process.call(begin_case, task)
        return time.monotonic() - clock


def _decode_answer(task: CaseTask, found: EncodedAnswer) -> CaseAnswer:
    encoded, certificates = found
    return CaseAnswer(task.name, decode_results(encoded, task.name), certificates)
