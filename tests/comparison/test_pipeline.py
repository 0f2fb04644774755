"""One pipeline: everything that compares chooses from the same stages, over one state that no stage changes."""

import ast
from dataclasses import fields, replace

import helpers
import pytest
from helpers import loaded
from test_architecture import ROOT, SOURCES, relative

from equiv.comparison import pipeline, stages
from equiv.comparison.case_result import make_case_result
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import FINISH, PROVE_ONLY, START, RunOptions, run_case
from equiv.comparison.stages import check_structure, open_case
from equiv.comparison.state import CaseState, advance
from equiv.core.checks import CHECK_NAMES
from equiv.core.results import CaseResult
from equiv.errors import PortError

ASSEMBLED = ("compile_port", "prove_all", "measure_noise", "run_on_probe", "measure_sensitivity", "mutate_proofs")
"""What only stages call: who else did would assemble the pipeline again."""

NAME = "stateful_linear"


def grades(result: CaseResult) -> dict[tuple[str, str], str]:
    return {(check.candidate, check.check): check.grade for check in result.checks}


def test_only_stages_compile_prove_and_run_ports():
    callers = {
        (node.func.id, relative(path))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASSEMBLED
    }
    of_reference = {(name, "equiv/comparison/reference_probes.py") for name in ("run_on_probe", "measure_noise")}
    others = {(name, "equiv/comparison/stages.py") for name in ASSEMBLED if name != "measure_noise"}
    assert callers == of_reference | others


def test_no_test_assembles_the_pipeline_again():
    """What the tests judge is what a user gets."""
    shared = (ROOT / "tests" / "helpers.py").read_text()
    assert [name for name in ASSEMBLED if name in shared] == []


def test_every_stage_leaves_the_state_before_it_unchanged():
    state = check_structure(open_case(loaded(NAME).case))
    for stage in (*START, *FINISH):
        before = {field.name: getattr(state, field.name) for field in fields(CaseState)}
        copies = {name: dict(value) for name, value in before.items() if isinstance(value, dict)}
        after = stage(state)
        assert all(getattr(state, name) is value for name, value in before.items())
        assert all(getattr(state, name) == copy for name, copy in copies.items())
        state = after
    assert set(make_case_result(loaded(NAME), state).verdicts.values()) == {"same"}


def test_a_run_in_two_halves_is_a_run():
    """So that the next case is traced while this one compiles."""
    options = RunOptions()
    halves = pipeline.finish_case(loaded(NAME), pipeline.start_case(loaded(NAME), lambda _: None, options), options)
    assert grades(halves) == grades(run_case(loaded(NAME)))


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "options",
    [RunOptions(prove_only=True), RunOptions(initial_values=True), RunOptions(against=freeze_reference(loaded(NAME)))],
    ids=["proofs", "initial", "frozen"],
)
def test_every_choice_of_stages_gives_a_run_its_verdict(options):
    result = run_case(loaded(NAME), options=options)
    assert result.verdicts == run_case(loaded(NAME)).verdicts
    assert {check.check for check in result.checks} <= set(CHECK_NAMES)
    assert bool(result.initial_values) == options.initial_values


def test_an_untraced_candidate_does_not_stop_the_others(monkeypatch):
    """Its checks say why; the other candidate has its verdict."""

    def fail(built_case, name):
        if name == "linen":
            raise PortError("planted")
        return trace_port(built_case, name)

    trace_port = stages.trace_port
    monkeypatch.setattr(stages, "trace_port", fail)
    for options in (RunOptions(), RunOptions(prove_only=True)):
        result = run_case(loaded(NAME), options=options)
        assert result.verdicts == {"linen": "error", "nnx": "same"}
        assert {check.summary for check in result.checks if check.grade == "error"} == {"planted"}


def test_stages_say_what_they_do():
    told = []
    state = check_structure(open_case(loaded(NAME).case, told.append))
    advance(replace(state, candidates=("linen",)), (*START, *FINISH))
    assert told == [
        "tracing",
        "proving",
        "tracing with other sizes",
        "compiling haiku",
        "measuring rounding",
        "compiling linen",
        "measuring the sensitivity of the probes",
    ]


def test_what_is_known_already_is_not_traced_or_run_again(monkeypatch):
    """A frozen reference, or one that a test has run, is given in the state."""
    traced = []
    state, trace_port = replace(open_case(loaded(NAME).case), traced=helpers.opened(NAME).traced), stages.trace_port
    monkeypatch.setattr(stages, "trace_port", lambda built, name: traced.append(name) or trace_port(built, name))
    advance(state, PROVE_ONLY)
    assert traced == ["linen", "nnx"]
