"""Several processes of `jax.distributed` are refused: each would compare every case by itself."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "distributed_run.py"
CASE = Path(__file__).parents[2] / "cases" / "custom_linear.py"


@pytest.mark.slow
def test_each_of_two_processes_is_refused_with_the_fix(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), port, str(number), str(CASE), str(tmp_path / str(number))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        for number in range(2)
    ]
    for number, process in enumerate(processes):
        said = " ".join(process.communicate(timeout=300)[0].split())
        assert process.returncode == 2, said
        assert f"equiv: jax.distributed: this is process {number} of 2" in said
        assert "without jax.distributed.initialize" in said


def test_one_of_several_processes_is_refused(monkeypatch):
    from equiv.backends.environment import describe_environment
    from equiv.errors import EquivError

    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(EquivError, match=r"this is process 0 of 2, .* Run equiv in one process"):
        describe_environment()
