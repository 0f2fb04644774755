"""Which side, and what is it likely to be: said from what was found, and only where that points somewhere."""

from dataclasses import replace
from random import Random

import pytest
from pages import PARTED_PORTS, measured, parted, real

from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.results import CaseResult, CheckResult, Finding, Intermediate, Spread
from equiv.report.findings.possible_causes import (
    describe_first_lost_value,
    describe_side,
    failed_findings,
    possible_causes,
)
from equiv.report.findings.source_lines import difference_sites

PARTS = real("batch_norm", Random(0))


def refuted(place: str, relation: str = "", *equations: FirstDifference, **fields: object) -> Finding:
    """A refused finding by numbers."""
    spread = Spread(relation=relation, rounded=(1.0, 2.0))
    return measured(place, Random(0), grade="refuted", ratio=50.0, spread=spread, first_differences=equations, **fields)


def with_finding(check: str, finding: Finding, candidate: str = "nnx", case: CaseResult = PARTS) -> CaseResult:
    """A case in which one check of a candidate has one finding."""
    others = tuple(one for one in case.checks if (one.check, one.candidate) != (check, candidate))
    return replace(case, checks=(*others, CheckResult(check, candidate, finding.grade, "", (finding,))))


def test_a_site_has_the_source_line_and_the_layer():
    """From the sources and the layer table of the case."""
    first = PARTS.leaves[0]
    leaf = replace(first, leaf="block.norm/scale", places={"haiku": "model/block/batch_norm/scale (params)"})
    case = parted(replace(PARTS, leaves=(leaf, *PARTS.leaves[1:])))
    _, finding = failed_findings(case, "nnx")[0]
    left, right = difference_sites(case, finding, "nnx")
    assert left.code.startswith("x = hk.BatchNorm(create_scale=True")
    assert right.code == "x = self.batchnorm(x)"
    assert (left.layer, right.layer) == ("block.norm", "block.norm")


@pytest.mark.parametrize("lost", [True, False])
def test_a_line_with_equal_results_is_no_first_difference(lost: bool):
    """As the way through the network shows."""
    case = parted(PARTS)
    finding = refuted("eval f: output", "", *PARTED_PORTS)
    point = Intermediate("add", 9.0, 0.1, lost, location=SourceLine("cases/batch_norm.py", 23))
    checks = tuple(replace(check, intermediates=(point,)) if check.intermediates else check for check in case.checks)
    assert len(difference_sites(case, finding, "nnx")) == 2
    assert len(difference_sites(replace(case, checks=checks), finding, "nnx")) == 2 * lost


def test_one_port_alone_is_no_place_where_both_part():
    """What the other has nothing like is left out."""
    alone = FirstDifference("nnx", "tanh", location=SourceLine("a.py", 3, 1, "f"))
    assert difference_sites(PARTS, refuted("eval f: output", "", alone), "nnx") == ()


@pytest.mark.parametrize(
    ("check", "finding", "cause"),
    [
        (
            "structure",
            Finding("leaf a/bias", "refuted", note="nnx has no such leaf"),
            "leaf a/bias: nnx has no such leaf",
        ),
        (
            "gradients",
            refuted("gradient f: gradient a/w", "all zero"),
            "no gradient reaches a/w in nnx (0 everywhere)",
        ),
        ("train", refuted("train: a/mean", "unchanged by every step"), "nnx's training never changes a/mean"),
        (
            "outputs",
            refuted("eval f: output", "2 times the reference"),
            "nnx gives 2 times the reference at eval f: output",
        ),
        (
            "outputs",
            refuted("eval f: output", "", *PARTED_PORTS),
            "different constants in add: 1e-05 in haiku, 0.001 in nnx; ",
        ),
        (
            "outputs",
            refuted(
                "eval f: output",
                "",
                FirstDifference("haiku", "dot_general", ("x", "a/w")),
                FirstDifference("nnx", "dot_general", ("x", "b/w")),
            ),
            "different leaves at the same place: dot_general takes a/w in haiku, b/w in nnx: two leaves are swapped",
        ),
        (
            "outputs",
            refuted("eval f: output", "", FirstDifference("haiku", "max", (), ("0",)), FirstDifference("nnx", "erf")),
            "different operations: max of 0 in haiku, erf in nnx",
        ),
    ],
    ids=["missing", "detached", "stale", "factor", "constant", "swapped", "operation"],
)
def test_a_cause_is_read_from_what_was_found(check: str, finding: Finding, cause: str):
    """Each of them is what the fault of its name leaves behind."""
    (said, *_) = possible_causes(with_finding(check, finding), "nnx")
    assert said.startswith(cause)


def test_places_of_one_cause_are_grouped():
    """The first few by name."""
    findings = tuple(refuted(f"gradient f: gradient a{number}", "all zero") for number in range(6))
    check = CheckResult("gradients", "nnx", "refuted", "", findings)
    (said,) = possible_causes(replace(PARTS, checks=(check,)), "nnx")
    assert said.startswith("no gradient reaches a0, a1, a2 and 3 more in nnx (0 everywhere): ")


def test_a_brace_in_a_line_of_code_stays_one():
    """The sentences are templates."""
    at = SourceLine("a.py", 1), SourceLine("{x}.py", 3)
    pair = FirstDifference("haiku", "add", (), ("1",), *at), FirstDifference("nnx", "add", (), ("2",), *at)
    (said,) = possible_causes(with_finding("outputs", refuted("eval f: output", "", *pair)), "nnx")
    assert said.endswith("; {x}.py:3")


def test_without_evidence_no_cause_is_named():
    """Two equations that differ in nothing that is known say nothing."""
    pair = FirstDifference("haiku", "mul"), FirstDifference("nnx", "mul")
    assert possible_causes(with_finding("outputs", refuted("eval f: output", "", *pair)), "nnx") == ()
    assert possible_causes(PARTS, "nnx") == ()


def test_the_other_candidate_votes():
    """With the reference, with the candidate, or with neither."""
    place, off = PARTS.checks[1].findings[0].place, refuted(PARTS.checks[1].findings[0].place, candidate="7")
    alone = with_finding("outputs", off)
    assert describe_side(alone, *failed_findings(alone, "nnx")[0]).startswith(
        "haiku and linen agree here and only nnx differs: look at nnx."
    )
    both = with_finding("outputs", off, "linen", alone)
    assert describe_side(both, *failed_findings(both, "nnx")[0]).startswith(
        "nnx and linen give the same value here and only haiku differs"
    )
    neither = with_finding("outputs", refuted(place, candidate="8"), "linen", alone)
    assert describe_side(neither, *failed_findings(neither, "nnx")[0]).startswith(
        "No other candidate agrees with either port here"
    )


def test_each_ports_own_float64_run_separates_formula_from_rounding():
    """By the run that judged."""
    for precision, words in (
        ("float64", "the formulas differ"),
        ("native", "the same formula with different rounding"),
    ):
        case = with_finding("outputs", refuted("eval f: output", precision=precision))
        assert words in describe_side(case, *failed_findings(case, "nnx")[0])


def test_the_way_parts_at_the_first_value_that_is_lost():
    """Not at one that is only another way to the same."""
    way = (
        Intermediate("mul", 9.0, 0.1),
        Intermediate("add", 0.0, 0.1, module_path="norm"),
        Intermediate("dot_general", 50.0, 0.1, True, "out", location=SourceLine("a.py", 3)),
    )
    case = replace(PARTS, checks=(CheckResult("outputs", "nnx", "refuted", "", (), way),))
    assert (
        describe_first_lost_value(case, "nnx")
        == "the first 2 of 3 intermediate values are equal; they differ from dot_general in out (a.py:3) on"
    )
    assert describe_first_lost_value(PARTS, "nnx") == ""
