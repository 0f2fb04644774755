"""Runs that something goes wrong in: what is finished is kept, who is guilty is named, and the run can go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_cases import write_case

INTERRUPTED = "not run: interrupted. Go on with --resume."


def start(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    """`equiv run` of the folder's cases, each in a process of its own; nothing is run, to be quick."""
    command = [sys.executable, "-m", "equiv", "run", folder / "cases", "--reports", folder, "--prove-only", *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EQUIV_ISOLATE": "1"},
    )


def run(folder: Path, *arguments: object) -> tuple[int, dict[str, str], str]:
    """Exit code, case to its verdict or problem, and what is said on standard error."""
    with start(folder, *arguments) as ran:
        _, said = ran.communicate()
    assert "Traceback" not in said
    return ran.returncode, told(folder), said


def told(folder: Path) -> dict[str, str]:
    cases = json.loads((folder / "results.json").read_bytes())["cases"]
    return {case["name"]: case["problem"] or " ".join(case["verdicts"].values()) for case in cases}


def wait_for_results(folder: Path, number: int) -> None:
    while len(list((folder / "journal").glob("*.json"))) < number:
        time.sleep(0.02)


def test_a_case_that_exits_is_an_error_beside_others(tmp_path):
    """The exit code of a process that exits with 0 is not the exit code of the run."""
    for name, kind in (("a", "exits"), ("b", "same")):
        write_case(tmp_path / "cases", name, kind)
    code, found, _ = run(tmp_path)
    assert code == 2
    assert found["a"].startswith("its process exited with code 0, last at 'a'. A case must not end the program")
    assert found["b"] == "same"


@pytest.mark.slow
def test_every_guilty_case_is_named_and_the_others_finish(tmp_path):
    kinds = (
        "same",
        "exits",
        "same",
        "aborts",
        "leaves",
        "interrupts",
        "is_killed",
        "unreadable",
        "takes_memory",
        "same",
    )
    for number, kind in enumerate(kinds):
        write_case(tmp_path / "cases", f"{number}_{kind}", kind)
    code, found, _ = run(tmp_path, "--memory", "1.5GB")
    assert code == 2
    assert [name for name, said in found.items() if said == "same"] == ["0_same", "2_same", "9_same"]
    for name, said in {
        "1_exits": "its process exited with code 0, last at '1_exits",
        "3_aborts": "its process was ended by SIGABRT (signal 6), last at '3_aborts",
        "4_leaves": "error",
        "5_interrupts": "it raised KeyboardInterrupt. A case must not end the program",
        "6_is_killed": "its process was ended by SIGKILL (signal 9), last at '6_is_killed",
        "7_unreadable": "importing it raised ",
        "8_takes_memory": "it was stopped at 1.5",
    }.items():
        assert said in found[name], found[name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hangs", "loops"])
def test_a_case_without_an_end_is_stopped(tmp_path, kind):
    for name, one in (("a", "same"), ("b", kind), ("c", "same")):
        write_case(tmp_path / "cases", name, one)
    code, found, _ = run(tmp_path, "--timeout", "60", "-n", "2")
    assert code == 2
    assert found["b"].startswith("it was stopped after 60 s, last at 'b")
    assert (found["a"], found["c"]) == ("same", "same")


@pytest.mark.slow
def test_what_a_case_leaves_behind_harms_no_other(tmp_path):
    """A timer of the first ends the process of a later one, which is run again alone."""
    for name, kind in (("a", "forgets_a_timer"), ("b", "same"), ("c", "same"), ("d", "same"), ("e", "same")):
        write_case(tmp_path / "cases", name, kind)
    _, found, _ = run(tmp_path)
    assert [name for name, said in found.items() if said == "same" and name != "a"] == ["b", "c", "d", "e"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_finished_while_xla_loops(tmp_path, number):
    """And `--resume` runs the rest, once the case is repaired."""
    for name, kind in (("a", "same"), ("b", "loops"), ("c", "same")):
        write_case(tmp_path / "cases", name, kind)
    with start(tmp_path, "-n", "2") as ran:
        wait_for_results(tmp_path, 2)
        ran.send_signal(number)
        began = time.monotonic()
        ran.communicate()
    assert time.monotonic() - began < 30
    assert ran.returncode == 2
    assert told(tmp_path) == {"a": "same", "b": INTERRUPTED, "c": "same"}
    write_case(tmp_path / "cases", "b")
    code, found, said = run(tmp_path, "--resume")
    assert (code, set(found.values())) == (0, {"same"})
    assert "resumed: 2 of 3 cases have a verdict already\n" in said


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(10))
def test_a_killed_run_goes_on_where_it_was(tmp_path, moment):
    """Whenever it is killed, old results stay, and no verdict is lost."""
    for name in "abc":
        write_case(tmp_path / "cases", name)
    (tmp_path / "results.json").write_text("old")
    with start(tmp_path) as ran:
        if moment < 5:
            time.sleep(moment * 1.2)
        else:
            wait_for_results(tmp_path, 1 + moment % 3)
        ran.kill()
        ran.communicate()
    kept = len(list((tmp_path / "journal").glob("*.json"))) if (tmp_path / "journal").exists() else 0
    assert (tmp_path / "results.json").read_text() == "old" or told(tmp_path) == dict.fromkeys("abc", "same")
    code, found, said = run(tmp_path, "--resume")
    assert (code, found) == (0, dict.fromkeys("abc", "same"))
    assert f"resumed: {kept} of 3 cases have a verdict already\n" in said


@pytest.mark.slow
def test_a_full_disk_is_trouble_and_old_results_stay(tmp_path):
    write_case(tmp_path / "cases", "a")
    (tmp_path / "results.json").write_text("old")
    script = "import resource, runpy\nresource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\nrunpy.run_module('equiv')"
    command = [sys.executable, "-c", script, "run", tmp_path / "cases", "--reports", tmp_path, "--prove-only"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout.startswith("✓ Same: 1 comparison of 1 case.\n")
    assert "results.json: cannot be written: File too large. Give another folder with --reports.\n" in ran.stderr
    assert (tmp_path / "results.json").read_text() == "old"


@pytest.mark.slow
def test_shards_together_are_all_cases(tmp_path):
    for name in "abc":
        write_case(tmp_path / "cases", name)
    found = [run(tmp_path, "--shard", f"{part}/2", "--no-isolate")[1] for part in (1, 2)]
    assert found == [{"a": "same", "c": "same"}, {"b": "same"}]
