"""Random programs with indices, sorting, convolutions, whole numbers, casts, branches, custom rules and draws.

`python tests/soundness_run.py` makes many more of them.
"""

from collections import Counter

import pytest
import soundness_operations as made
import soundness_run
from soundness_lookups import LOOKUPS, every_nth, looked_up_rows
from soundness_pieces import PIECES, in_parts, updated
from soundness_programs import ALL_STEPS, elementwise, random_inputs, random_program

from equiv.programs.prover import moves, rows, sums, terms, value_numbering
from equiv.programs.prover.moves import cut_along, take


def wrong_in(seed, steps, length=8):
    program = random_program(seed, length, (*steps, elementwise), twists=5)
    return soundness_run.wrong_proofs((soundness_run.subject(program, random_inputs()),), Counter())


@pytest.mark.quick(1)
@pytest.mark.parametrize("seed", range(2))
def test_values_of_one_name_are_equal(seed):
    assert wrong_in(seed, ALL_STEPS, 20) == []


@pytest.mark.parametrize("seed", range(2))
def test_pieces_of_one_name_are_equal(seed):
    assert wrong_in(seed, PIECES, 12) == []


@pytest.mark.parametrize("seed", range(2))
def test_lookups_of_one_name_are_equal(seed):
    assert wrong_in(seed, LOOKUPS, 8) == []


BROKEN = {
    "an update begins at zero": (moves, "_known_starts", lambda whole, sizes, starts: [0] * len(starts), updated),
    "a sum leaves out its last part": (
        sums,
        "cut_along",
        lambda *given: (cut_along(*given) or [None])[:-1] or None,
        in_parts,
    ),
    "every index counts": (rows, "_counted_axis", lambda algebra, index: 0 if index.shape else None, looked_up_rows),
    "every column is the first": (
        moves,
        "take",
        lambda pieces, value, axis, index: take(pieces, value, axis, 0),
        every_nth,
    ),
}
"""A wrong rule, and an operation that it would prove wrongly."""


@pytest.mark.parametrize(("owner", "name", "wrong", "step"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_rule_of_pieces_would_be_noticed(monkeypatch, owner, name, wrong, step):
    monkeypatch.setattr(owner, name, wrong)
    assert any(wrong_in(seed, (step,) * 4) for seed in range(30))


IGNORED = (
    ("dimension_numbers", made.gathered),
    ("dimensions", made.sliced),
    ("reverse", made.cumulated),
    ("padding", made.convolved),
    ("mantissa_bits", made.cast),
    ("dimension", made.ordered),
)
"""A parameter that decides, and an operation that has it."""


@pytest.mark.quick(3)
@pytest.mark.parametrize(("parameter", "step"), IGNORED, ids=lambda one: getattr(one, "__name__", one))
def test_an_ignored_parameter_would_be_noticed(monkeypatch, parameter, step):
    for module in (terms, value_numbering):
        monkeypatch.setattr(module, "IGNORED_PARAMS", {*terms.IGNORED_PARAMS, parameter})
    assert any(wrong_in(seed, (step,) * 4) for seed in range(30))
