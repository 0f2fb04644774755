"""Results: nothing is lost in JSON, another version or file is refused, a check is as strong as its weakest leaf."""

import json
import subprocess
import sys
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equiv.core.grades import DECIDING, EQUAL, REFUSALS, Grade, Verdict
from equiv.core.results import (
    SCHEMA_VERSION,
    CaseResult,
    CheckResult,
    DeviationResult,
    Finding,
    LeafResult,
    RunResult,
    Source,
    Spread,
    Waypoint,
)
from equiv.core.results_json import decode, encode, read
from equiv.core.verdict import verdict_of, weakest
from equiv.errors import EquivError

GRADES = get_args(Grade)
TEXT = st.text(max_size=12)
SIZE = st.integers(0, 2**40)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
REAL = st.floats(allow_nan=False, allow_infinity=False)
VERDICT = st.sampled_from(get_args(Verdict))


def some(strategy):
    return st.lists(strategy, max_size=2).map(tuple)


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
    spread=st.none() | st.builds(Spread, some(REAL), some(SIZE), some(TEXT), some(SIZE), some(REAL), TEXT),
)
CHECK = st.builds(
    CheckResult,
    check=TEXT,
    candidate=TEXT,
    grade=st.sampled_from(GRADES),
    summary=TEXT,
    findings=some(FINDING),
    walk=some(st.builds(Waypoint, TEXT, TEXT, NUMBER, REAL, st.booleans())),
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
    left_over=SIZE,
    sources=st.dictionaries(TEXT, st.builds(Source, TEXT, SIZE, TEXT), max_size=2),
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
    assert decode(encode(result), "here") == result


@MANY
@given(RUN)
def test_json_is_the_same_bytes_for_the_same_run(result):
    assert encode(decode(encode(result), "here")) == encode(result)


def test_json_is_indented_sorted_and_ends_with_a_line_end():
    data = encode(FULL).decode()
    assert data.endswith("}\n")
    assert '\n "cases"' in data
    assert list(json.loads(data)) == sorted(json.loads(data))
    assert json.loads(data)["schema"] == SCHEMA_VERSION


def test_a_run_is_read_from_a_file(tmp_path):
    (tmp_path / "results.json").write_bytes(encode(FULL))
    assert read(tmp_path / "results.json") == FULL


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(EquivError, match=r"results\.json: cannot be read: No such file or directory\. Give the JSON"):
        read(tmp_path / "results.json")


def changed(**fields):
    return msgspec.json.encode({**json.loads(encode(FULL)), **fields})


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
def test_json_that_is_no_run_is_refused_with_the_place_in_it(data, message):
    with pytest.raises(EquivError, match=rf"here\.json: .*{message}.*Write it anew with equiv run"):
        decode(data, "here.json")


@pytest.mark.parametrize(
    "data",
    [changed(schema=SCHEMA_VERSION + 1), changed(schema=0), b'{"schema": 99, "findings": []}'],
    ids=["newer", "older", "other-fields"],
)
def test_another_schema_version_is_refused_with_both_versions(data):
    """Also where it shares no other field with ours."""
    version = json.loads(data)["schema"]
    message = rf"here\.json: results schema {version}, this version reads {SCHEMA_VERSION}\. Write it anew"
    with pytest.raises(EquivError, match=message):
        decode(data, "here.json")


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
def test_a_check_is_as_strong_as_its_weakest_leaf_and_any_refusal_comes_first(grades, expected):
    assert weakest(findings(*grades)) == expected


@given(st.lists(st.sampled_from(GRADES), max_size=6), st.randoms(use_true_random=False))
def test_the_grade_of_a_check_does_not_hang_on_the_order_of_its_leaves(grades, random):
    other = random.sample(grades, len(grades))
    assert weakest(findings(*grades)) == weakest(findings(*other))


def test_every_grade_has_its_rank():
    assert sorted(DECIDING) == sorted(GRADES)
    assert set(EQUAL).isdisjoint(REFUSALS)


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


@given(st.lists(st.sampled_from([grade for grade in GRADES if grade not in EQUAL]), min_size=1), st.sampled_from(EQUAL))
def test_nothing_that_is_not_equal_makes_a_verdict_same(grades, equal):
    assert verdict_of(checks(equal, *grades)) != "same"


def test_results_are_read_and_summed_up_without_jax_or_a_framework(tmp_path):
    (tmp_path / "results.json").write_bytes(encode(FULL))
    code = (
        "import sys; from pathlib import Path; import equiv.core.results, equiv.summary\n"
        f"run = equiv.core.results.read(Path({str(tmp_path / 'results.json')!r}))\n"
        "print(equiv.core.headline.summarise(run.cases)[0])\n"
        "print(*(name for name in ('jax', 'jaxlib', 'flax', 'haiku', 'optax') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["different", ""]
