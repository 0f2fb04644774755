"""Results: nothing is lost in JSON, another version or file is refused, a check is as strong as its weakest leaf."""

import json
import re
import subprocess
import sys
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equiv.core.divergence import Divergence, TriedCause
from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.grades import EQUAL_GRADES, GRADE_PRIORITY, REFUSAL_GRADES, Grade, Verdict
from equiv.core.output_name import ProgramName
from equiv.core.results import (
    RESULTS_SCHEMA_VERSION,
    BuilderSource,
    CaseResult,
    CheckResult,
    DeviationResult,
    Finding,
    Intermediate,
    LeafResult,
    ProbeTrial,
    RunResult,
    Spread,
    TrialKind,
)
from equiv.core.results_json import decode_results, encode_results, read_results
from equiv.core.verdict import check_grade, verdict_of
from equiv.errors import EquivError

GRADES = get_args(Grade)
TEXT = st.text(max_size=12)
SIZE = st.integers(0, 2**40)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
REAL = st.floats(allow_nan=False, allow_infinity=False)
VERDICT = st.sampled_from(get_args(Verdict))


def some(strategy):
    return st.lists(strategy, max_size=2).map(tuple)


LINE = st.builds(SourceLine, TEXT, SIZE, SIZE, TEXT)
SITE = st.builds(FirstDifference, TEXT, TEXT, some(TEXT), some(TEXT), st.none() | LINE, st.none() | LINE, TEXT)
DIVERGENCE = st.builds(
    Divergence,
    st.builds(ProgramName, st.sampled_from(["call", "eval", "step"]), TEXT),
    some(SITE),
    some(st.builds(TriedCause, TEXT, REAL, st.booleans())),
    SIZE,
    TEXT,
    TEXT,
    st.none() | REAL,
)
FINDING = st.builds(
    Finding,
    place=TEXT,
    grade=st.sampled_from(GRADES),
    error=NUMBER,
    budget=NUMBER,
    ratio=NUMBER,
    precision=st.sampled_from(["", "native", "float64"]),
    reference=TEXT,
    candidate=TEXT,
    index=some(SIZE),
    probe=TEXT,
    nonfinite=st.tuples(SIZE, SIZE),
    note=TEXT,
    response=NUMBER,
    depth=st.none() | SIZE,
    rewrites=some(TEXT),
    first_differences=some(SITE),
    divergences=some(DIVERGENCE),
    spread=st.none() | st.builds(Spread, some(REAL), some(SIZE), some(TEXT), some(SIZE), some(REAL), TEXT),
)
CHECK = st.builds(
    CheckResult,
    check=TEXT,
    candidate=TEXT,
    grade=st.sampled_from(GRADES),
    summary=TEXT,
    findings=some(FINDING),
    intermediates=some(
        st.builds(Intermediate, TEXT, NUMBER, REAL, st.booleans(), TEXT, st.booleans(), st.none() | LINE)
    ),
)
CASE = st.builds(
    CaseResult,
    name=TEXT,
    lesson=TEXT,
    guide=TEXT,
    reference=TEXT,
    candidates=some(TEXT),
    verdicts=st.dictionaries(TEXT, VERDICT, max_size=2),
    checks=some(CHECK),
    leaves=some(
        st.builds(LeafResult, leaf=TEXT, shape=some(SIZE), dtype=TEXT, places=st.dictionaries(TEXT, TEXT, max_size=2))
    ),
    deviations=some(st.builds(DeviationResult, *[TEXT] * 6)),
    problem=TEXT,
    trials=some(st.builds(ProbeTrial, st.sampled_from(get_args(TrialKind)), some(TEXT), st.booleans(), NUMBER, TEXT)),
    unmapped_leaves=SIZE,
    sources=st.dictionaries(TEXT, st.builds(BuilderSource, TEXT, SIZE, TEXT), max_size=2),
    seconds=st.floats(0, 1e6),
)
RUN = st.builds(
    RunResult,
    verdict=VERDICT,
    headline=TEXT,
    environment=st.dictionaries(TEXT, TEXT, max_size=2),
    cases=some(CASE),
    started=TEXT,
    seconds=st.floats(0, 1e6),
    problems=some(TEXT),
)
MANY = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

FULL = RunResult(
    verdict="different",
    headline="Not the same",
    environment={"jax": "0.10.2"},
    cases=(
        CaseResult(
            name="mlp",
            lesson="one line",
            guide="here",
            reference="haiku",
            candidates=("nnx",),
            verdicts={"nnx": "different"},
            checks=(
                CheckResult(
                    "outputs",
                    "nnx",
                    "refuted",
                    "1 refuted",
                    (Finding("call: output", "refuted", 0.5, 0.25, 2.0, "native", "1", "1.5", (3, 0), "0", (0, 1)),),
                ),
            ),
            leaves=(LeafResult("linear/kernel", (3, 4), "float32", {"haiku": "linear/w (params)"}),),
            deviations=(DeviationResult("nnx", "a", "b", "c", "d", "e"),),
        ),
    ),
    started="2024-01-01T00:00:00",
    seconds=1.5,
)


@MANY
@given(RUN)
def test_a_run_comes_back_from_json_as_it_was(result):
    assert decode_results(encode_results(result), "here") == result


@MANY
@given(RUN)
def test_json_is_the_same_bytes_for_the_same_run(result):
    assert encode_results(decode_results(encode_results(result), "here")) == encode_results(result)


def test_json_is_indented_sorted_and_ends_with_a_line_end():
    data = encode_results(FULL).decode()
    assert data.endswith("}\n")
    assert '\n "cases"' in data
    assert list(json.loads(data)) == sorted(json.loads(data))
    assert json.loads(data)["schema"] == RESULTS_SCHEMA_VERSION


def test_a_run_is_read_from_a_file(tmp_path):
    (tmp_path / "results.json").write_bytes(encode_results(FULL))
    assert read_results(tmp_path / "results.json") == FULL


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(EquivError, match=r"results\.json: cannot be read: No such file or directory\. Give the JSON"):
        read_results(tmp_path / "results.json")


def changed(**fields):
    return msgspec.json.encode({**json.loads(encode_results(FULL)), **fields})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not a results file of equiv: Input data was truncated"),
        (b"{", r"not a results file of equiv: Input data was truncated"),
        (b"<html>", r"not a results file of equiv: JSON is malformed"),
        (b"[]", r"not a results file of equiv: Expected `object`, got `array`"),
        (b"{}", r"not a results file of equiv: Object missing required field `schema`"),
        (b'{"schema": "1"}', r"not a results file of equiv: Expected `int`, got `str` - at `\$\.schema`"),
        (b'{"schema": 1}', r"not a results file of equiv: Object missing required field `verdict`"),
        (b'{"schema": 1, "verdict": "\xff"}', r"not a results file of equiv: "),
        (changed(seconds="long"), r"Expected `float`, got `str` - at `\$\.seconds`"),
        (changed(verdict="maybe"), r"Invalid enum value 'maybe' - at `\$\.verdict`"),
        (changed(cases=[{"name": 3}]), r"Expected `str`, got `int` - at `\$\.cases\[0\]\.name`"),
    ],
    ids=[
        *("nothing", "cut", "html", "list", "empty", "schema-type", "fields", "not-utf8", "number", "verdict", "deep"),
    ],
)
def test_json_that_is_no_run_is_refused_with_the_path(data, message):
    with pytest.raises(EquivError, match=rf"here\.json: .*{message}.*Regenerate it with equiv run"):
        decode_results(data, "here.json")


@pytest.mark.parametrize(
    "data",
    [changed(schema=RESULTS_SCHEMA_VERSION + 1), changed(schema=0), b'{"schema": 99, "findings": []}'],
    ids=["newer", "older", "other-fields"],
)
def test_another_schema_version_is_refused_with_both_versions(data):
    """Also where it shares no other field with ours."""
    version = json.loads(data)["schema"]
    message = (
        rf"here\.json: results schema {version}, this version reads 1 and {RESULTS_SCHEMA_VERSION}\. Regenerate it"
    )
    with pytest.raises(EquivError, match=message):
        decode_results(data, "here.json")


FILE_NAME = st.text(min_size=1).filter(lambda name: not re.search(r":\d", name))


@given(st.builds(SourceLine, FILE_NAME, SIZE, SIZE, st.text()))
def test_a_source_line_is_parsed_from_its_text(line):
    """Unless a colon and a digit are in the name of the file."""
    assert SourceLine.parse(str(line)) == line


def findings(*grades):
    return tuple(Finding(str(index), grade) for index, grade in enumerate(grades))


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ((), "vacuous"),
        (("exact",), "exact"),
        (("exact", "float64"), "float64"),
        (("proved", "exact", "rounding", "float64"), "rounding"),
        (("rounding", "expected"), "expected"),
        (("expected", "statistical"), "statistical"),
        (("exact", "vacuous", "unidentifiable"), "exact"),
        (("vacuous", "unidentifiable"), "unidentifiable"),
        (("vacuous", "vacuous"), "vacuous"),
        (("exact", "refuted", "vacuous"), "refuted"),
        (("error", "refuted"), "refuted"),
        (("blocked", "error", "exact"), "error"),
        (("not run", "blocked", "exact"), "blocked"),
        (("not run", "exact"), "not run"),
    ],
    ids=lambda grades: "-".join(grades).replace(" ", "") or "none" if isinstance(grades, tuple) else "",
)
def test_a_checks_grade_is_its_weakest_leafs_refusals_first(grades, expected):
    assert check_grade(findings(*grades)) == expected


@given(st.lists(st.sampled_from(GRADES), max_size=6), st.randoms(use_true_random=False))
def test_a_checks_grade_does_not_depend_on_leaf_order(grades, random):
    other = random.sample(grades, len(grades))
    assert check_grade(findings(*grades)) == check_grade(findings(*other))


def test_every_grade_has_its_rank():
    assert sorted(GRADE_PRIORITY) == sorted(GRADES)
    assert set(EQUAL_GRADES).isdisjoint(REFUSAL_GRADES)


def checks(*grades):
    return tuple(CheckResult("outputs", "nnx", grade, "") for grade in grades)


@pytest.mark.parametrize(
    ("grades", "verdict"),
    [
        ((), "inconclusive"),
        (("exact", "float64", "rounding"), "same"),
        (("proved", "proved modulo", "statistical", "expected"), "same"),
        (("exact", "vacuous"), "inconclusive"),
        (("exact", "unidentifiable"), "inconclusive"),
        (("exact", "not run"), "inconclusive"),
        (("exact", "blocked"), "inconclusive"),
        (("exact", "refuted"), "different"),
        (("refuted", "not run", "blocked", "vacuous"), "different"),
        (("refuted", "error"), "error"),
        (("exact", "error"), "error"),
    ],
    ids=lambda grades: "-".join(grades).replace(" ", "") or "none" if isinstance(grades, tuple) else "",
)
def test_same_is_said_only_where_every_check_says_so(grades, verdict):
    assert verdict_of(checks(*grades)) == verdict


@given(
    st.lists(st.sampled_from([grade for grade in GRADES if grade not in EQUAL_GRADES]), min_size=1),
    st.sampled_from(EQUAL_GRADES),
)
def test_nothing_that_is_not_equal_makes_a_verdict_same(grades, equal):
    assert verdict_of(checks(equal, *grades)) != "same"


def test_results_are_read_and_summed_up_without_jax(tmp_path):
    (tmp_path / "results.json").write_bytes(encode_results(FULL))
    code = (
        "import sys; from pathlib import Path; import equiv.core.headline, equiv.core.results_json\n"
        f"run = equiv.core.results_json.read_results(Path({str(tmp_path / 'results.json')!r}))\n"
        "print(equiv.core.headline.summarise_run(run.cases)[0])\n"
        "print(*(name for name in ('jax', 'jaxlib', 'flax', 'haiku', 'optax') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["different", ""]
