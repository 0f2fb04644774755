"""A process that runs cases: how it ends is told, and limits end it."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from equiv.running.case_process import CaseProcess, Ended, Stopped
from equiv.running.task import Limits


def run_in_process(function, *arguments, limits=Limits(), stopped=lambda: False):  # noqa: B008 - frozen
    process = CaseProcess(limits, lambda _: None, stopped)
    try:
        return process.call(function, *arguments)
    finally:
        process.end()


def allocate():
    blocks = []
    while True:
        blocks.append(b"x" * 10**7)


def kill_itself(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


@pytest.mark.parametrize(
    ("function", "arguments", "match"),
    [
        (os.abort, (), r"its process was ended by SIGABRT \(signal 6\)\. Run it alone, with --no-isolate"),
        (
            kill_itself,
            (signal.SIGKILL,),
            r"ended by SIGKILL \(signal 9\)\. If nobody sent it, the machine was out of mem",
        ),
        (kill_itself, (signal.SIGSEGV,), r"ended by SIGSEGV \(signal 11\)"),
        (os._exit, (0,), r"its process exited with code 0\. A case must not end the program"),
    ],
    ids=["abort", "kill", "segfault", "exit"],
)
def test_how_a_process_ended_is_told(function, arguments, match):
    with pytest.raises(Ended, match=match):
        run_in_process(function, *arguments)


def test_a_hang_is_stopped_at_the_time_limit():
    with pytest.raises(Ended, match=r"it was stopped after 0\.5 s\. Give it more time with --timeout") as caught:
        run_in_process(time.sleep, 60, limits=Limits(seconds=0.5))
    assert caught.value.by_time


def test_memory_is_bounded_and_both_sizes_are_told():
    limits = Limits(memory=150_000_000)
    with pytest.raises(
        Ended, match=r"it was stopped at 0\.\d\d GB of memory, of at most 0\.15\. Give it more with --mem"
    ):
        run_in_process(allocate, limits=limits)


def test_a_stopped_run_waits_for_no_case():
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Stopped):
        run_in_process(time.sleep, 60, stopped=stop.is_set)


def test_what_a_process_prints_is_not_on_standard_output(capfd):
    run_in_process(os.system, "echo from the shell")
    run_in_process(print, "from Python")
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err == "from the shell\nfrom Python\n"


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """Even where that one is killed, and the case computes without an end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from equiv.running.case_process import CaseProcess\n"
        "from equiv.running.task import Limits\n"
        "if __name__ == '__main__':\n"
        "    process = CaseProcess(Limits(), print, lambda: False)\n"
        "    print(process.call(os.getpid), flush=True)\n"
        "    process.call(time.sleep, 600)\n"
    )

    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        child = psutil.Process(int(started.stdout.readline()))
        started.kill()
    child.wait(timeout=60)
