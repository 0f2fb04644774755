"""Results of schema 1 are read whole: renamed keys, and sentences that are data since schema 2.

`data/results_v1.json` is from runs of the last version that wrote schema 1, cut down: a port with a planted factor with
faults, timings and initial values; a sequence of one step; a frozen reference; and batch normalisation with proofs.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.results import CaseResult, Finding, ProbeTrial, RunResult
from equiv.core.results_json import decode_results, encode_results, read_results
from equiv.errors import EquivError
from equiv.frontends.cli.main import main

FILE = Path(__file__).parent / "data" / "results_v1.json"
OLD = json.loads(FILE.read_text())
NEW = read_results(FILE)

NEW_KEYS = {
    "starts": "initial_values",
    "left_over": "unmapped_leaves",
    "walk": "intermediates",
    "p": "p_value",
    "fits_nowhere": "not_applicable",
    "naive": "back_to_back",
}
REWRITTEN = {"schema", "probes", "source", "note", "where", "outcomes"}
"""Keys that a test of their own compares."""


def differences(old: Any, new: Any, path: str = "$") -> list[str]:
    """Paths of values of schema 1 that are not the same under their new key."""
    if isinstance(old, dict):
        case = {"text": "source_digest"} if "lesson" in old else {}
        keys = [key for key in old if key not in REWRITTEN and not (key == "name" and "where" in old)]
        return [
            line
            for key in keys
            for line in differences(old[key], new.get((NEW_KEYS | case).get(key, key), "absent"), f"{path}.{key}")
        ]
    if isinstance(old, list):
        lengths = [f"{path}: {len(old)} and {len(new)}"] * (len(old) != len(new))
        return [
            *lengths,
            *(
                line
                for index, pair in enumerate(zip(old, new, strict=False))
                for line in differences(*pair, f"{path}[{index}]")
            ),
        ]
    return [] if old == new else [f"{path}: {old!r} and {new!r}"]


def test_every_value_of_schema_1_is_read():
    assert differences(OLD, msgspec.to_builtins(NEW)) == []


def test_every_renamed_key_occurs_in_the_old_file():
    """Otherwise the test above shows nothing of it."""
    text = FILE.read_text()
    assert [key for key in (*NEW_KEYS, *REWRITTEN, "text") if f'"{key}": ' not in text] == []
    (case, *_) = NEW.cases
    assert case.initial_values[0].p_value == 0.11261935791504718
    assert case.source_digest == OLD["cases"][0]["text"] != ""
    assert case.costs.timings[0].back_to_back is not None


def pairs(run: RunResult = NEW) -> list[tuple[dict[str, Any], Finding, CaseResult]]:
    """Every finding as it was and as it is."""
    return [
        (before, after, case)
        for old, case in zip(OLD["cases"], run.cases, strict=True)
        for old_check, check in zip(old["checks"], case.checks, strict=True)
        for before, after in zip(old_check["findings"], check.findings, strict=True)
    ]


def test_a_source_sentence_becomes_first_differences():
    """All that it says: written out again, it is the same sentence."""
    sentences = {
        before["source"]: f"first different: {'; '.join(map(str, after.first_differences))}"
        for before, after, _ in pairs()
        if before["source"]
    }
    assert len(sentences) >= 4
    assert [old for old, new in sentences.items() if old != new] == []
    assert not any(after.first_differences for before, after, _ in pairs() if not before["source"])


def test_operands_constants_lines_and_modules_are_told_apart():
    found = next(after for _, after, _ in pairs() if after.place == "train __call__: state block.norm/mean")
    haiku, nnx = found.first_differences
    assert haiku == FirstDifference(
        "haiku",
        "mul",
        location=SourceLine("haiku/_src/moving_averages.py", 123, 30, "ExponentialMovingAverage.__call__"),
        call_site=SourceLine("cases/batch_norm.py", 23),
        name_stack="model/block/batch_norm/mean_ema",
    )
    assert (nnx.constants, nnx.operands, nnx.name_stack) == (("0.01",), (), "")
    (added, _) = NEW.cases[0].checks[2].findings[0].first_differences
    assert (added.operands, added.constants) == (("linear/b",), ())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", []),
        ("another sentence", []),
        ("first different: nnx tanh at a/b.py:3:1 (f) in g", [("nnx", "tanh", "a/b.py:3")]),
        ("first different: haiku add; nnx mul with 2", [("haiku", "add", ""), ("nnx", "mul", "")]),
        (
            "first different: haiku add at /x y/(p).py:7 (nnx of it); nnx mul at b.py:1:2 (g), called at c.py:9",
            [("haiku", "add", "/x y/(p).py:7"), ("nnx", "mul", "c.py:9")],
        ),
    ],
    ids=["empty", "other", "one", "bare", "odd"],
)
def test_any_source_sentence_of_schema_1_can_be_read(source: str, expected: list[tuple[str, str, str]]):
    """What it does not say is empty."""
    (finding,) = (
        read_finding({"place": "call f: output", "grade": "refuted", "source": source}).cases[0].checks[0].findings
    )
    found = finding.first_differences
    assert [(one.port, one.primitive, one.user_line.short if one.user_line else "") for one in found] == expected


def test_a_note_of_rewrites_becomes_rewrites():
    modulo = [(before, after) for before, after, _ in pairs() if after.grade == "proved modulo"]
    assert ["; ".join(after.rewrites) for _, after in modulo] == [before["note"] for before, _ in modulo]
    assert {after.note for _, after in modulo} == {""}
    assert len(modulo[0][1].rewrites) == 3
    others = [(before, after) for before, after, _ in pairs() if after.grade != "proved modulo"]
    assert [(after.note, after.rewrites) for _, after in others] == [(before["note"], ()) for before, _ in others]


def test_rewrites_at_the_end_of_a_refusal_are_read():
    note = "no rounding explains this difference"
    old = {"place": "p", "grade": "refuted", "note": f"{note}; proved the same function modulo one, another"}
    (finding,) = read_finding(old).cases[0].checks[0].findings
    assert (finding.note, finding.rewrites) == (note, ("one", "another"))


def test_places_of_probes_become_kinds_of_trial():
    before = [finding for case in OLD["cases"] for finding in case["probes"]]
    after = [trial for case in NEW.cases for trial in case.trials]
    rest = [(one["ratio"], one["note"], one["grade"] == "exact") for one in before]
    assert [(one.ratio, one.note, one.detected) for one in after] == rest
    assert {one["place"]: (new.kind, new.subject) for one, new in zip(before, after, strict=True)} == {
        "moving linear/w": ("moved", ("linear/w",)),
        "moving linear/b": ("moved", ("linear/b",)),
        "tampering with linen, call __call__": ("mutated proof", ("linen", "call __call__")),
        "tampering with linen, gradient __call__": ("mutated proof", ("linen", "gradient __call__")),
        "tampering with linen, step": ("mutated proof", ("linen", "step")),
        "moving i/kernel": ("moved", ("i/kernel",)),
        "moving i/bias": ("moved", ("i/bias",)),
        "moving h/kernel": ("moved", ("h/kernel",)),
        "tampering with nnx, call __call__": ("mutated proof", ("nnx", "call __call__")),
        "tampering with nnx, gradient __call__": ("mutated proof", ("nnx", "gradient __call__")),
        "tampering with nnx, step": ("mutated proof", ("nnx", "step")),
        "lengthening x to float32[5,3,4]": ("longer batch", ("x to float32[5,3,4]",)),
        "environment": ("environment", ()),
        "swapping block.linear/bias and block.norm/scale": ("swapped", ("block.linear/bias", "block.norm/scale")),
        "moving block.linear/kernel": ("moved", ("block.linear/kernel",)),
    }


def test_a_trial_that_showed_nothing_is_not_detected():
    trial = {"place": "swapping a/b and a/c", "grade": "unidentifiable", "ratio": 0.5, "note": "none tells"}
    case = {**OLD["cases"][0], "probes": [trial]}
    (upgraded,) = decode_results(json.dumps({**OLD, "cases": [case]}).encode(), "here").cases
    assert upgraded.trials == (ProbeTrial("swapped", ("a/b", "a/c"), False, 0.5, "none tells"),)


def test_names_of_intermediate_values_become_fields():
    (check,) = [check for check in NEW.cases[0].checks if check.intermediates]
    assert [(one.primitive, one.module_path, one.backward) for one in check.intermediates] == [
        ("dot_general", "linear", False),
        ("add", "linear", False),
    ]
    assert {str(one.location) for one in check.intermediates} == {"cases/custom_linear.py:22"}
    old = {"name": "mul on the way back in a/b", "where": "", "ratio": None, "floor": 0.1, "lost": True}
    (point,) = read_check({"walk": [old]}).cases[0].checks[0].intermediates
    assert (point.name, point.location, point.backward) == ("mul in the backward pass in a/b", None, True)


def test_noticed_mutants_are_killed_ones():
    rows = [
        (old["outcomes"], new.outcomes)
        for old, new in zip(OLD["cases"][0]["faults"]["rows"], NEW.cases[0].faults.rows, strict=True)
    ]
    assert rows
    for before, after in rows:
        assert {"noticed" if name == "killed" else name: count for name, count in after.items()} == before


def test_what_was_read_is_written_as_schema_2():
    data = encode_results(NEW)
    assert json.loads(data)["schema"] == 2
    assert decode_results(data, "here") == NEW


def read_check(changed: dict[str, Any]) -> RunResult:
    """The run with one check of schema 1 that has these fields."""
    check = {"check": "outputs", "candidate": "nnx", "grade": "refuted", "summary": "", **changed}
    case = {**OLD["cases"][0], "checks": [check]}
    return decode_results(json.dumps({**OLD, "cases": [case]}).encode(), "here")


def read_finding(finding: dict[str, Any]) -> RunResult:
    return read_check({"findings": [finding]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cases": 3}, "'int' object is not iterable"),
        ({"cases": [3]}, "'int' object has no attribute 'items'"),
        ({"cases": [{"probes": [{}]}]}, "'place'"),
        ({"cases": [{"probes": [{"place": "shaking a", "grade": "exact"}]}]}, "'shaking a'"),
        ({"seconds": "long"}, r"Expected `float`, got `str` - at `\$\.seconds`"),
    ],
    ids=["no_list", "no_object", "no_place", "another_trial", "type"],
)
def test_a_broken_file_of_schema_1_is_refused(changed: dict[str, Any], message: str):
    with pytest.raises(EquivError, match=rf"here: not a results file of equiv: {message}.*Regenerate it"):
        decode_results(json.dumps({**OLD, **changed}).encode(), "here")


def test_old_results_are_reported_and_compared(tmp_path: Path):
    """The page shows what schema 1 kept under other keys; `equiv diff` finds nothing changed."""
    (tmp_path / "new.json").write_bytes(encode_results(NEW))
    ran = CliRunner().invoke(main, ["diff", str(FILE), str(tmp_path / "new.json")])
    assert (ran.exit_code, ran.stderr) == (0, "")
    for name, words in (("page.html", "mutants killed"), ("page.md", "custom_linear"), ("page.xml", "<testsuite")):
        ran = CliRunner().invoke(main, ["report", str(FILE), "-o", str(tmp_path / name)])
        assert ran.exit_code == 0, ran.stderr
        assert words in (tmp_path / name).read_text()
