"""Exit codes: 0 only where every case is the same and everything was said; old results stay whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_cases import write_case

from equiv.core.results import RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.frontends.cli.main import main

STORED = RunResult("inconclusive", "Inconclusive: \x1b[2J\x9b stored.", {"jax": "\x1b]0;title\a"}, (), "2026", 0.5)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "stored.json"
    path.write_bytes(encode_results(STORED))
    return path


def start(*arguments: object, **options) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "equiv", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


def test_a_pipe_that_nobody_reads_is_trouble(stored):
    reading, writing = os.pipe()
    os.close(reading)
    with start("report", stored, stdout=writing) as ran:
        os.close(writing)
        _, said = ran.communicate()
    assert ran.returncode == 2
    assert said.startswith(b"equiv: the output cannot be printed: BrokenPipeError")
    assert b"Traceback" not in said


@pytest.mark.parametrize("command", ["report", "diff"])
def test_a_full_disk_behind_the_output_is_trouble(stored, command):
    """`report` prints plainly, `diff` through a console."""
    with open("/dev/full", "wb") as full, start(command, *[stored] * (1 + (command == "diff")), stdout=full) as ran:  # noqa: PTH123
        _, said = ran.communicate()
    assert ran.returncode == 2
    assert b"the output cannot be printed: OSError: [Errno 28] No space left on device" in said


def test_old_documents_survive_a_full_disk(tmp_path, stored):
    output = tmp_path / "report.html"
    output.write_text("old")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "from equiv.frontends.cli.main import main; main()"
    )
    command = [sys.executable, "-c", script, "report", str(stored), "-o", str(output)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.endswith("cannot be written: File too large. Give another file with -o.\n")
    assert output.read_text() == "old"


@pytest.mark.parametrize(
    "arguments", [[], ["-o", "report.xml"], ["-o", "report.md"]], ids=["print", "junit", "markdown"]
)
def test_documents_hold_no_control_characters(tmp_path, monkeypatch, stored, arguments):
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(main, ["report", str(stored), *arguments])
    text = Path(arguments[-1]).read_text() if arguments else ran.stdout
    assert ran.exit_code == 0
    assert not {"\x1b", "\x9b", "\a"} & set(text)
    assert "stored" in text or "]0;title" in text


def test_results_that_are_printed_hold_no_control_characters():
    assert not {"\x1b", "\x9b", "\a"} & set(encode_results(STORED).decode())
    assert decode_results(encode_results(STORED), "stored") == STORED


@pytest.mark.parametrize("depth", [200, 200_000])
def test_deep_json_is_a_sentence(tmp_path, depth):
    path = tmp_path / "deep.json"
    path.write_text('{"schema": 1, "cases": ' + "[" * depth + "]" * depth + "}")
    ran = CliRunner().invoke(main, ["report", str(path)])
    assert ran.exit_code == 2
    assert "deep.json: not a results file of equiv: " in ran.stderr
    assert "Please report" not in ran.stderr


def test_ctrl_c_ends_a_command_as_trouble(tmp_path):
    """`freeze` of a case whose builder waits; nothing is printed but the sentence."""
    path = write_case(tmp_path, "a", "hangs")
    path.write_text(
        path.read_text().replace(
            "def old():", "def old():\n    print('begun', flush=True)\n    import time; time.sleep(600)"
        )
    )
    with start("freeze", path, "-o", tmp_path / "a.equiv", stdout=subprocess.DEVNULL) as ran:
        assert ran.stderr is not None
        assert ran.stderr.readline() == b"begun\n"
        time.sleep(0.1)
        ran.send_signal(signal.SIGINT)
        assert ran.stderr.read() == b"equiv: interrupted\n"
    assert ran.returncode == 2
    assert not (tmp_path / "a.equiv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "3/2"], "equiv: --shard '3/2': wanted k/n, a part from 1 to n. Write --shard 2/8."),
        (["--shard", "1/2"], "equiv: --shard 1/2: there are 1 cases, fewer than parts. Give fewer parts."),
        (["--memory", "much"], "equiv: --memory 'much': no size. Write --memory 4GB."),
        (["-n", "0"], "equiv: -n '0': wanted auto, or a number of processes from 1 on. Write -n 2."),
        (["--timeout", "9"], "equiv: --timeout and --memory need processes of their own. Leave out --no-isolate."),
        (["--timeout", "0"], "Error: Invalid value for '--timeout': 0.0 is not in the range x>0."),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_used_say_why(tmp_path, arguments, message):
    path = write_case(tmp_path, "a")
    ran = CliRunner().invoke(main, ["run", str(path), *arguments, "--reports", str(tmp_path)])
    assert message in ran.stderr
    assert ran.exit_code == 2


def test_an_endless_loop_in_xla_is_interrupted(tmp_path):
    """In this process, where Python itself handles no signal meanwhile."""
    script = (
        "import threading, os, signal, jax\n"
        "from equiv.frontends.cli import base, interrupts\n"
        "interrupts.GRACE_SECONDS = 0.2\n"
        "loop = jax.jit(lambda x: jax.lax.while_loop(lambda n: n >= 0, lambda n: n * 0, x))\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "base.run_and_exit(lambda: loop(1).block_until_ready())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (2, "equiv: interrupted")


@pytest.mark.parametrize(("kind", "said"), [("exits", "os._exit(0) was called"), ("leaves", "SystemExit: 0")])
def test_a_builder_that_exits_is_no_pass(tmp_path, kind, said):
    """Of `equiv check`, which has no process for it."""
    path = write_case(tmp_path, f"case_that_{kind}", kind)
    ran = CliRunner().invoke(main, ["check", f"{path}:old", f"{path}:new", "--input", "float32[4,2]"])
    assert ran.exit_code == 2
    assert said in ran.output
