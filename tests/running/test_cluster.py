"""A Dask cluster: a lost worker loses no case, and a case that ends its process is an error of its own."""

import os
import signal
import threading
import time

import psutil
import pytest
from small_cases import write_case

from equiv.errors import EquivError
from equiv.frontends.run import run
from equiv.running.run_tasks import Place
from equiv.running.task import Limits


@pytest.fixture(scope="module")
def address():
    """A scheduler and two workers on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def test_a_scheduler_that_does_not_answer_is_named(tmp_path):
    path = write_case(tmp_path, "a")
    with pytest.raises(EquivError, match=r"--scheduler nonsense://: no scheduler answers: .*\. Start one: dask sch"):
        run(path, place=Place(scheduler="nonsense://"))


@pytest.mark.slow
def test_a_lost_worker_loses_no_case(tmp_path, address):
    """The worker that runs a case is killed, another one takes it; cases that end their processes are errors."""
    for name, kind in (("a", "same"), ("b", "exits"), ("c", "hangs"), ("d", "same")):
        write_case(tmp_path / "cases", name, kind)
    slow = (tmp_path / "cases" / "a.py").read_text()
    wait = f"import os, time; open({str(tmp_path / 'pid')!r}, 'a').write(str(os.getpid()) + ' ')\n    time.sleep(6)\n"
    (tmp_path / "cases" / "a.py").write_text(
        slow.replace("    return nn.Dense(3)", f"    {wait}    return nn.Dense(3)", 1)
    )
    lost = []

    def kill_worker():
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        lost.append(psutil.Process(int((tmp_path / "pid").read_text().split()[0])).ppid())
        os.kill(lost[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    place = Place(scheduler=address, limits=Limits(seconds=60))
    found = run(tmp_path / "cases", prove_only=True, place=place, journal=tmp_path)
    killer.join()
    verdicts = {case.name: case.verdicts or case.problem for case in found.cases}
    assert lost
    assert len((tmp_path / "pid").read_text().split()) >= 2
    assert verdicts["a"] == verdicts["d"] == {"new": "same"}
    assert verdicts["b"].startswith("its process exited with code 0, last at 'b")
    assert verdicts["c"].startswith("it was stopped after 60 s, last at 'c")
    assert len(list((tmp_path / "journal").iterdir())) == 4
