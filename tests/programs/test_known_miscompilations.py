"""Known miscompilations are tried once per release and device, kept, and told first."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from rich.console import Console

from equiv.comparison.pipeline import make_run_result
from equiv.core.results import CaseResult
from equiv.core.scope import Scope
from equiv.programs import known_miscompilations
from equiv.programs.known_miscompilations import KNOWN, cache_file, find_known_miscompilations
from equiv.report.html.page import render_page
from equiv.report.junit import render_junit
from equiv.report.markdown import render_markdown
from equiv.report.terminal.run import print_run

RIGHT, WRONG = np.float32([1.0, 2.0, 3.0]), np.float32([1.0, 2.0, 3.001])


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing is known yet, in this process or on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("EQUIV_COMPILED", "1")
    known_miscompilations._wrong_here.cache_clear()
    yield
    known_miscompilations._wrong_here.cache_clear()


def plant(monkeypatch, *computed):
    """Known programs that give these numbers; the list of those that were tried."""
    tried = []

    def answers(number, values):
        def give():
            tried.append(number)
            return values, RIGHT.astype("float64")

        return give

    planted = tuple(
        replace(KNOWN[0], what=f"program {number}", answers=answers(number, values))
        for number, values in enumerate(computed)
    )
    monkeypatch.setattr(known_miscompilations, "KNOWN", planted)
    return tried


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.what)
def test_each_has_a_source_and_runs_here(known):
    computed, right = known.answers()
    assert computed.shape == right.shape
    assert known.source.startswith("https://github.com/")


@pytest.mark.parametrize(
    ("computed", "right"),
    [(RIGHT, True), (WRONG, False), (np.nextafter(RIGHT, np.float32(9)), True), (RIGHT * np.nan, False)],
    ids=["equal", "wrong", "rounded", "nan"],
)
def test_only_what_rounding_does_not_explain_is_wrong(monkeypatch, computed, right):
    plant(monkeypatch, computed)
    assert known_miscompilations.KNOWN[0].is_right() == right
    assert bool(find_known_miscompilations()) != right


def test_each_is_tried_once_and_kept(monkeypatch):
    tried = plant(monkeypatch, RIGHT, WRONG)
    found = find_known_miscompilations()
    known_miscompilations._wrong_here.cache_clear()
    assert find_known_miscompilations() == found
    assert tried == [0, 1]
    assert "compiles program 1 wrong on this device" in "".join(found)
    assert list(json.loads(cache_file().read_text()).values()) == [{"program 0": True, "program 1": False}]


def test_another_device_is_tried_again(monkeypatch):
    tried = plant(monkeypatch, RIGHT)
    find_known_miscompilations()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    find_known_miscompilations()
    assert tried == [0, 0]
    assert len(json.loads(cache_file().read_text())) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"jax": 3}', '{"jax": {"program 0": "no"}}'])
def test_a_file_that_somebody_else_wrote_is_not_believed(monkeypatch, text):
    cache_file().parent.mkdir()
    cache_file().write_text(text)
    plant(monkeypatch, WRONG)
    assert find_known_miscompilations()


def test_a_folder_that_cannot_be_written_costs_nothing(monkeypatch, tmp_path):
    (tmp_path / "equiv").write_text("a file")
    plant(monkeypatch, WRONG)
    assert find_known_miscompilations()


def test_what_does_not_run_at_all_is_not_wrong(monkeypatch):
    def fail():
        raise ValueError("planted")

    monkeypatch.setattr(known_miscompilations, "KNOWN", (replace(KNOWN[0], answers=fail),))
    assert find_known_miscompilations() == ()


def test_every_report_tells_them_and_the_terminal_first(monkeypatch):
    plant(monkeypatch, WRONG)
    scope = Scope({"x": "float32[1]"}, {"__call__": ("x",)}, ("call",), 1)
    case = CaseResult("a", "", "", "haiku", ("nnx",), {"nnx": "same"}, (), scope=scope)
    run = make_run_result([case], datetime.now(UTC), 1.0)
    file = io.StringIO()
    print_run(run, Console(file=file, width=200))
    told = "compiles program 0 wrong on this device"
    assert told in file.getvalue().splitlines()[0]
    assert all(told in text for text in (render_markdown([run]), render_junit([run]), render_page([run])))


def test_a_run_that_compiles_nothing_tries_none(monkeypatch):
    tried = plant(monkeypatch, WRONG)
    scope = Scope({}, {}, ("call",), 1, ran=False)
    case = CaseResult("a", "", "", "haiku", ("nnx",), {"nnx": "same"}, (), scope=scope)
    assert make_run_result([case], datetime.now(UTC), 1.0).known_miscompilations == ()
    assert tried == []
