"""A port that cheats is not called the same, or its limit is said; `tests/cheating_run.py` has all of them."""

import pytest
from cheating.cheat import Cheat, dense, is_caught, judge
from cheating.right import all_right
from cheating_run import all_cheats

FEW = (
    *("doubled above 60", "a branch of a switch never taken", "row 25 is zero"),
    *("custom_jvp of another function", "another function at every trace", "rate changes at step 1000"),
)


@pytest.mark.quick(2)
@pytest.mark.parametrize("cheat", [one for one in all_cheats() if one.name in FEW], ids=lambda one: one.name)
def test_a_cheat_is_caught_or_its_limit_said(cheat: Cheat):
    assert is_caught(cheat, *judge(cheat))


def test_there_are_many_cheats_of_distinct_names():
    names = [one.name for one in all_cheats()]
    assert len(names) == len(set(names)) >= 100
    assert set(FEW) <= set(names)


def test_there_are_many_right_ports_of_distinct_names():
    names = [one.name for one in all_right()]
    assert len(names) == len(set(names)) >= 60


def test_what_is_silently_called_the_same_is_no_catch():
    cheat = Cheat("none", "none", dense(lambda y: y), dense(lambda y: y), {"x": "float32[5,4]"}, says="rows")
    assert not is_caught(cheat, *judge(cheat))
