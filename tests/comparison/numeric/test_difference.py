"""Grades: which equality two arrays reach, what refuses them, and that the budget alone decides."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named import output_named

from equiv.comparison.numeric.difference import compare_output, worst_finding
from equiv.comparison.observation import Comparison, PortOutputs, RoundingNoise, Sample
from equiv.core.batch_spec import FLOAT_DTYPES
from equiv.core.budget import BUDGET_LEVEL, Responses
from equiv.core.case import Case
from equiv.core.leaves import LeafTable
from equiv.core.results import Finding
from equiv.programs.probes import numpy_dtype

PLACE = output_named("train __call__: output")
CASE = Case(guide="", models={}, batch={}, layers=())
ULP = 2.0**-23
WHY = "no float64 run: haiku: tracing in float64 raised TypeError"


def side(backend, samples, unlifted=""):
    return PortOutputs(LeafTable(backend, ()), 0, samples, {}, {}, unlifted)


def comparison(left, right, lifted=None, noise=0.0, lifted_noise=0.0, depth=1, place=PLACE, more=None):
    """Two ports that give `left` and `right` at `place`, and the pair `lifted` in float64.

    Args:
        left: the reference's native value.
        right: the candidate's.
        lifted: both lifted values; None: there is no lifted run.
        noise: response of the reference to an ulp, native.
        lifted_noise: likewise, lifted.
        depth: rounded operations in a row.
        place: the output.
        more: other outputs of both ports, native and lifted alike.
    """
    more = more or {}
    wide = {name: value.astype("float64") for name, value in more.items()}
    highs = (None, None) if lifted is None else ({place: value, **wide} for value in lifted)
    pairs = zip((left, right), highs, strict=True)
    samples = [{"0": Sample({place: native, **more}, high)} for native, high in pairs]
    responses = RoundingNoise({"0": {place: Responses(noise)}}, {"0": {place: Responses(lifted_noise)}}, {place: depth})
    unlifted = WHY if lifted is None else ""
    return Comparison(CASE, side("haiku", samples[0], unlifted), side("nnx", samples[1]), responses)


def graded(left, right, *arguments, **options):
    return compare_output(comparison(left, right, *arguments, **options), options.get("place", PLACE))


ONE = np.array([1.0, -2.0, 0.5], "float32")
NEAR = ONE * np.array([1, 1 + ULP, 1], "float32")
FAR = ONE * np.array([1, 1.01, 1], "float32")
WIDE = ONE.astype("float64")


def test_equal_bit_for_bit_in_both_precisions_is_exact():
    finding = graded(ONE, ONE.copy(), (WIDE, WIDE.copy()))
    assert (finding.grade, finding.error, finding.ratio, finding.note) == ("exact", 0, 0, "")


def test_equal_bit_for_bit_without_a_float64_run_is_exact():
    assert graded(ONE, ONE.copy()).grade == "exact"


def test_small_differences_with_equal_float64_runs_are_float64():
    finding = graded(ONE, NEAR, (WIDE, WIDE * (1 + 2.0**-52)))
    assert (finding.grade, finding.precision) == ("float64", "float64")
    assert 0 < finding.ratio < 1


def test_without_a_float64_run_small_differences_are_rounding():
    """The finding says why there is no float64 run."""
    finding = graded(ONE, NEAR)
    assert (finding.grade, finding.precision, finding.note) == ("rounding", "native", WHY)


def test_float64_runs_that_differ_refute_what_native_rounding_hides():
    """Another algorithm, by 1e-8: below what float32 can show."""
    finding = graded(ONE, ONE.copy(), (WIDE, WIDE * (1 + 1e-8)))
    assert (finding.grade, finding.precision) == ("refuted", "float64")
    assert finding.error == pytest.approx(2e-8)
    assert finding.ratio > 1e6
    assert "no rounding explains" in finding.note


def test_a_candidate_that_rounds_beyond_its_dtype_is_refuted():
    finding = graded(ONE, FAR, (WIDE, WIDE.copy()))
    assert (finding.grade, finding.precision) == ("refuted", "native")
    assert "the same function, but the candidate rounds more" in finding.note
    assert finding.error == pytest.approx(0.02, rel=1e-4)


def test_native_rounding_is_measured_against_the_references_own_too():
    """A reference that is itself far from its float64 run gives its candidates that much room."""
    unstable = WIDE + np.array([0, 0.02, 0])
    assert graded(ONE, FAR, (unstable, unstable.copy())).grade == "float64"


def test_a_finding_shows_the_worst_element_and_its_budget():
    finding = graded(ONE, FAR, depth=4, noise=0.125)
    assert (finding.index, finding.reference, finding.candidate) == ((1,), "-2", "-2.01999998")
    assert (finding.output, finding.probe, finding.depth, finding.response) == (PLACE, "0", 4, 0.125)
    assert finding.place == "train __call__: output"
    assert finding.budget == pytest.approx(0.125 * 2 * BUDGET_LEVEL)
    assert finding.ratio == pytest.approx(finding.error / finding.budget)


@pytest.mark.parametrize(
    ("right", "note", "shown"),
    [
        (np.ones((1, 3), "float32"), "shape differs", ("[3]", "[1, 3]")),
        (np.ones((), "float32"), "shape differs", ("[3]", "[]")),
        (np.ones((3, 1), "float64"), "shape differs", ("[3]", "[3, 1]")),
        (np.ones(3, "float64"), "dtype differs", ("float32", "float64")),
        (np.ones(3, ml_dtypes.bfloat16), "dtype differs", ("float32", "bfloat16")),
        (np.ones(3, "int32"), "dtype differs", ("float32", "int32")),
    ],
    ids=["unit-axis", "scalar", "shape-before-dtype", "wide", "narrow", "integer"],
)
def test_another_shape_or_dtype_is_refuted_and_never_converted(right, note, shown):
    """Neither broadcast nor cast."""
    finding = graded(np.ones(3, "float32"), right, noise=1e9)
    assert (finding.grade, finding.note, (finding.reference, finding.candidate)) == ("refuted", note, shown)
    assert finding.ratio is None


NAN = np.array([1.0, math.nan, 0.5], "float32")
INF = np.array([1.0, math.inf, 0.5], "float32")


@pytest.mark.parametrize("bad", [NAN, INF, -INF], ids=["nan", "inf", "minus-inf"])
def test_values_not_finite_on_one_side_are_refuted_and_counted(bad):
    ours, theirs = graded(bad, ONE, noise=1e9), graded(ONE, bad, noise=1e9)
    assert (ours.grade, ours.nonfinite, ours.index) == ("refuted", (1, 0), (1,))
    assert (theirs.grade, theirs.nonfinite, theirs.index) == ("refuted", (0, 1), (1,))
    assert "haiku gives values that are not finite" in ours.note
    assert "nnx gives values that are not finite" in theirs.note


@pytest.mark.parametrize("bad", [NAN, INF, -INF], ids=["nan", "inf", "minus-inf"])
def test_equal_values_not_finite_leave_the_others_judged(bad):
    wide = bad.astype("float64")
    assert graded(bad, bad.copy(), (wide, wide.copy())).grade == "exact"
    assert graded(bad, bad * np.array([1, 1, 1 + ULP], "float32")).grade == "rounding"
    apart = graded(bad, bad * np.array([1, 1, 1.01], "float32"))
    assert (apart.grade, apart.index) == ("refuted", (2,))
    assert graded(ONE, ONE.copy(), (wide, wide.copy())).grade == "exact"


@pytest.mark.parametrize("pair", [(NAN, INF), (INF, -INF), (-INF, NAN)], ids=["nan-inf", "signs", "inf-nan"])
def test_other_values_not_finite_at_one_element_are_refuted(pair):
    finding = graded(*pair, noise=1e9)
    assert (finding.grade, finding.index, finding.nonfinite) == ("refuted", (1,), (1, 1))
    assert "but other ones" in finding.note


def test_values_not_finite_at_other_elements_are_refuted():
    moved = np.roll(INF, 1)
    assert graded(INF, moved).grade == "refuted"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_without_a_finite_value_nothing_is_compared(value):
    full = np.full(3, value, "float32")
    finding = graded(full, full.copy())
    assert (finding.grade, finding.nonfinite) == ("error", (3, 3))
    assert "nothing can be compared" in finding.note


@pytest.mark.parametrize("bad", [NAN, INF], ids=["nan", "inf"])
def test_a_float64_run_not_finite_on_one_side_is_refuted(bad):
    wide = bad.astype("float64")
    assert graded(ONE, ONE.copy(), (WIDE, wide)).grade == "refuted"
    assert graded(ONE, ONE.copy(), (wide, WIDE)).grade == "refuted"


def test_all_zero_on_both_sides_is_vacuous():
    zero = np.zeros(3, "float32")
    finding = graded(zero, -zero, (zero.astype("float64"), zero.astype("float64")), noise=1.0)
    assert (finding.grade, finding.note) == ("vacuous", "all zero in both ports: nothing is compared")


def test_zero_on_one_side_is_refuted_without_a_ratio():
    finding = graded(np.zeros(3, "float32"), ONE)
    assert (finding.grade, finding.ratio, finding.budget) == ("refuted", None, 0)


def test_an_empty_array_is_vacuous():
    assert graded(np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32")).grade == "vacuous"


GRADIENT = output_named("gradient __call__: gradient key/bias")
OTHER = {output_named("gradient __call__: gradient out/kernel"): np.array([3.0, -4.0], "float32")}


def test_a_gradient_that_is_zero_in_theory_is_unidentifiable():
    """An attention's key bias: noise next to the gradient of the whole model, and other noise in the candidate."""
    noise = np.array([1.0, -2.0], "float64") * 1e-16
    finding = graded(
        (noise * 1e9).astype("float32"),
        (-noise * 3e9).astype("float32"),
        (noise, -3 * noise),
        place=GRADIENT,
        more=OTHER,
    )
    assert (finding.grade, "zero in theory" in finding.note) == ("unidentifiable", True)


def test_a_gradient_zero_on_one_side_only_is_refuted():
    noise = np.array([1.0, -2.0], "float64") * 1e-16
    real = np.array([0.1, 0.2])
    finding = graded(noise.astype("float32"), real.astype("float32"), (noise, real), place=GRADIENT, more=OTHER)
    assert finding.grade == "refuted"


def test_small_outputs_are_no_noise_beside_gradients():
    """Only a gradient is judged by the size of all gradients."""
    small = np.array([1e-16, -2e-16])
    finding = graded(small.astype("float32"), (-small).astype("float32"), (small, -small), more=OTHER)
    assert finding.grade == "refuted"


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "int64"])
def test_whole_numbers_are_exact_or_refuted(dtype):
    left, right = np.array([1, 0, 1], dtype), np.array([1, 1, 0], dtype)
    same, apart = graded(left, left.copy(), noise=1e9), graded(left, right, noise=1e9)
    assert (same.grade, same.error, same.ratio) == ("exact", 0, 0)
    assert (apart.grade, apart.error, apart.index) == ("refuted", 1, (1,))
    assert apart.note == "2 of 3 whole numbers differ"


def test_the_difference_of_unsigned_numbers_does_not_wrap():
    assert graded(np.array([3], "uint8"), np.array([5], "uint8")).error == 2


def test_an_output_that_the_candidate_lacks_is_refuted():
    both = comparison(ONE, ONE)
    lacking = Comparison(CASE, both.reference, side("nnx", {"0": Sample({}, None)}), both.noise)
    finding = compare_output(lacking, PLACE)
    assert (finding.grade, finding.note) == ("refuted", "the candidate does not return it")


def test_an_output_that_no_probe_reaches_is_vacuous():
    assert compare_output(comparison(ONE, ONE), output_named("train: nowhere")).grade == "vacuous"


def test_the_worst_probe_speaks():
    samples = {"0": (ONE, ONE), "1": (ONE, FAR), "cold": (ONE, NEAR)}
    left, right = ({name: Sample({PLACE: pair[index]}, None) for name, pair in samples.items()} for index in (0, 1))
    both = Comparison(CASE, side("haiku", left), side("nnx", right), RoundingNoise({}, {}, {}))
    assert (compare_output(both, PLACE).grade, compare_output(both, PLACE).probe) == ("refuted", "1")
    assert compare_output(both, PLACE, probes=("0", "cold")).grade == "rounding"
    assert compare_output(both, PLACE, probes=("0",)).grade == "exact"


@pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
def test_a_refusal_without_a_ratio_is_worse_than_any_ratio(order):
    findings = [Finding("a", "refuted", note="shape differs"), Finding("b", "refuted", ratio=1e9)]
    assert worst_finding(PLACE, findings[::order]).note == "shape differs"


def test_the_worst_of_equal_grades_has_the_largest_ratio():
    grades = {"rounding": (0.1, 0.5, 0.2), "exact": (0.9,)}
    findings = [Finding("", grade, ratio=ratio) for grade, ratios in grades.items() for ratio in ratios]
    assert (worst_finding(PLACE, findings).grade, worst_finding(PLACE, findings).ratio) == ("rounding", 0.5)


ARRAYS = st.lists(st.integers(-1000, 1000).filter(bool), min_size=1, max_size=4).map(
    lambda values: np.array(values, "float32") / 64
)
OFFSETS = st.sampled_from([0.0, ULP, 8 * ULP, 1e-4, 0.5])


@settings(deadline=None, max_examples=200)
@given(ARRAYS, OFFSETS, st.sampled_from([0.0, 2.0**-52, 1e-8]), st.sampled_from([0, 1e-5]), st.integers(-20, 20))
def test_scaling_by_a_power_of_two_changes_no_grade(left, offset, high_offset, noise, power):
    """Nor a ratio, where both sides and the noise are scaled."""
    wide = left.astype("float64")
    arrays = [left, (left * (1 + offset)).astype("float32"), wide, wide * (1 + high_offset)]

    def of(scale):
        one, two, three, four = (array * array.dtype.type(scale) for array in arrays)
        more = {name: value * np.float32(scale) for name, value in OTHER.items()}
        options = {"noise": noise * scale, "lifted_noise": noise * 1e-9 * scale, "place": GRADIENT, "more": more}
        return graded(one, two, (three, four), **options), graded(one, two, **options)

    for plain, scaled in zip(of(1.0), of(2.0**power), strict=True):
        assert (scaled.grade, scaled.ratio, scaled.index) == (plain.grade, plain.ratio, plain.index)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e-6, 1e-2), st.integers(1, 10_000), st.floats(1e-4, 0.5), st.booleans())
def test_just_over_the_budget_is_refuted_and_just_under_not(noise, depth, margin, lifted):
    budget = noise * math.sqrt(depth) * BUDGET_LEVEL
    one = np.array([1.0, 1.0])

    def at(factor):
        other = one + np.array([0, factor * budget])
        pair = (one, other) if lifted else None
        return graded(one, one if lifted else other, pair, noise=noise, lifted_noise=noise, depth=depth)

    over, under = at(1 + margin), at(1 - margin)
    assert over.grade == "refuted"
    assert under.grade == ("exact" if lifted else "rounding")
    for finding, factor in ((over, 1 + margin), (under, 1 - margin)):
        assert finding.budget == pytest.approx(budget)
        assert finding.ratio == finding.error / finding.budget == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("name", FLOAT_DTYPES)
def test_without_measured_noise_the_response_is_one_ulp(name):
    """Of the largest value."""
    dtype = numpy_dtype(name)
    left = np.array([3.0, 0.25], dtype)
    ulp = float(ml_dtypes.finfo(left.dtype).eps)
    assert graded(left, left.copy()).response == 3 * ulp
    apart = np.array([3.0, 0.25 + 3 * ulp], dtype)
    assert graded(left, apart).grade == "rounding"
    assert graded(left, left * np.array([1.5, 1], dtype)).grade == "refuted"
