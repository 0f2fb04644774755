"""Planted faults: each is found, by the check and at the place that it names.

A fault is a change in the text of a case: in a builder, its train step, the layer table or the record below it. Each
file of `planted_faults/` is a group of them; models that the suite does not have are in its folder `cases/`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import helpers
import pytest
from comparison.planted_fault import CALL, EVAL, OWN_CASES, Fault
from data_modules import modules_of

from equiv.core.checks import CHECK_NAMES

FAULTS = tuple(planted for group in modules_of("comparison.planted_faults") for planted in group.FAULTS)


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run: which checks ran, and the places that each of them refused, with precision and note."""

    ran: tuple[str, ...]
    refused: dict[str, dict[str, str]]


def full_name(case: str) -> str:
    """The name under which `helpers` find a case: its own, or a path for one that the suite does not have."""
    return str(OWN_CASES[case].with_suffix("")) if case in OWN_CASES else case


@cache
def outcome(planted: Fault) -> Outcome:
    """Every check of a fault, once per session."""
    name = full_name(planted.case)
    results = helpers.judge(name, planted.candidate, helpers.patched(name, *planted.changes))
    refused = {
        name: {f.place: f"{f.precision}: {f.note}" for f in found} for name, found in helpers.refuted(results).items()
    }
    return Outcome(tuple(results), refused)


ALONE = {
    "structure": "printed_path_is_wrong",
    "randomness": "one_key_for_all_layers",
    "outputs": "shift_that_the_loss_does_not_see",
    "gradients": "input_gets_no_gradient",
    "state": "statistics_move_in_eval_mode",
    "train": "known_difference_with_wrong_decay",
}
"""Check to a fault that no other check finds."""


def in_order() -> Iterator[Any]:
    """Every fault; but for those of `ALONE`, they are marked `slow`."""
    for group in modules_of("comparison.planted_faults"):
        for one in group.FAULTS:
            yield one if one.name in ALONE.values() else pytest.param(one, marks=pytest.mark.slow)


@pytest.mark.parametrize("planted", tuple(in_order()), ids=lambda planted: planted.name)
def test_fault_is_found_by_its_check_at_its_place(planted: Fault) -> None:
    """The named check refuses the named place; checks that cannot see the fault stay clean."""
    found = outcome(planted)
    assert planted.place in found.refused.get(planted.check, {}), found.refused
    assert set(planted.clean) <= set(found.ran)
    assert not set(planted.clean) & set(found.refused), found.refused


@pytest.mark.slow  # as are the faults in them
@pytest.mark.parametrize("name", OWN_CASES)
def test_own_case_without_a_fault_is_the_same(name: str) -> None:
    """What the faults in cases of `OWN_CASES` show is the fault, not the case."""
    *_, candidate = helpers.loaded(full_name(name)).case.models
    results = helpers.judge(full_name(name), candidate, helpers.patched(full_name(name)))
    assert not helpers.refuted(results)
    assert {"structure", "outputs", "gradients", "train"} <= set(results)


def test_there_are_at_least_thirty_faults_with_own_names() -> None:
    """There are enough of them, and none hides another."""
    assert len({planted.name for planted in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("check", [name for name in CHECK_NAMES if name in ALONE])
def test_check_finds_a_fault_that_no_other_check_finds(check: str) -> None:
    """A check without such a fault would be a check that may as well be left out.

    A fault of the compiler is in no case's text: those of `compiled` are planted in `test_user_runs.py`, and those of
    `sharding`, which no other check sees, in `test_sharding.py`.
    """
    assert set(CHECK_NAMES) == {*ALONE, "compiled", "invariance", "sharding"}
    found = outcome(named(ALONE[check]))
    assert set(found.refused) == {check}
    assert "train" in found.ran


def named(name: str) -> Fault:
    """The fault of this name."""
    return next(planted for planted in FAULTS if planted.name == name)


def test_difference_below_float32_is_found_in_float64() -> None:
    """A factor of 1 + 2e-7 is within the rounding of float32."""
    assert outcome(named("relative_error_2e-7")).refused["outputs"][CALL].startswith("float64: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["layer_computes_in_bfloat16", "layer_computes_in_float16", "activations_pass_through_float16"]
)
def test_too_much_rounding_is_distinguished_from_another_function(name: str) -> None:
    """A layer that rounds to half precision is said to be the same function, rounded too much."""
    assert "rounds more" in outcome(named(name)).refused["outputs"][EVAL]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("known_difference_with_wrong_decay", "does not hold"),
        pytest.param("known_difference_is_stale", "stale", marks=pytest.mark.slow),
    ],
)
def test_known_difference_is_said_to_be_wrong_or_stale(name: str, words: str) -> None:
    """A formula that does not hold and one that is no longer needed have different messages."""
    planted = named(name)
    assert words in outcome(planted).refused["train"][planted.place]
