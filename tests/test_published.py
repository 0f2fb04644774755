"""The pairs of `tests/published/` are well-formed, and their judge notices what is wrong."""

import ast
from dataclasses import replace

import flax.linen as nn
import haiku as hk
import numpy as np
import published_run
import pytest
from packaging.requirements import Requirement
from published_judge import ask, judge
from published_pair import PAIRS, Pair, load_pair, move, pair_names, swap_ends


def reference():
    return hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP((3, 3), with_bias=False, activation=nn.tanh)(x)))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, use_bias=False, name="b")(nn.tanh(nn.Dense(3, use_bias=False, name="a")(x)))


def by_hand(left):
    return {"a/kernel": left["mlp/~/linear_0/w"], "b/kernel": left["mlp/~/linear_1/w"]}


PAIR = Pair(reference, Port, {"x": "float32[2,3]"}, "same", by_hand)


@pytest.fixture(scope="module")
def answer():
    """What equiv says of the pair above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIV_COMPILED", "0")
        yield ask(PAIR)


@pytest.mark.parametrize("name", pair_names())
def test_pairs_are_well_formed(name):
    pair = load_pair(name)
    tree = ast.parse((PAIRS / f"{name}.py").read_text())
    top = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    packages = {alias.name for one in top for alias in one.names} | {getattr(one, "module", "") for one in top}
    assert ast.get_docstring(tree)
    assert pair.verdict in ("same", "different")
    assert bool(pair.bug) == (pair.verdict == "different")
    assert not packages & {Requirement(text).name.replace("-", "_") for text in pair.needs}


def test_a_right_answer_is_right(answer):
    score = judge("pair", PAIR, answer, measure=False)
    assert score.right, score.why


def test_a_wrong_verdict_is_noticed(answer):
    score = judge("pair", PAIR, replace(answer, verdict="different"), measure=False)
    assert (score.wrong_verdict, score.map_right, score.hand_right) == (True, True, True)
    assert not score.right


def test_no_verdict_is_not_the_opposite_one(answer):
    score = judge("pair", PAIR, replace(answer, verdict="inconclusive"), measure=False)
    assert (score.right, score.wrong_verdict) == (False, False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda left: {"a/kernel": left["mlp/~/linear_1/w"], "b/kernel": left["mlp/~/linear_0/w"]},
        lambda left: {**by_hand(left), "a/kernel": left["mlp/~/linear_0/w"].T},
        lambda left: {"a/kernel": left["mlp/~/linear_0/w"]},
        lambda left: {**by_hand(left), "b/kernel": left["mlp/~/linear_1/w"] + 1},
        lambda left: {**by_hand(left), "b/kernel": np.where(left["mlp/~/linear_1/w"] > 9, np.nan, 1)},
    ],
    ids=["swapped", "transposed", "missing", "shifted", "in part"],
)
def test_a_wrong_map_is_noticed(answer, wrong):
    score = judge("pair", replace(PAIR, leaf_map=wrong), answer, measure=False)
    assert (score.map_right, score.right) == (False, False)


def test_any_of_several_maps_may_be_right(answer):
    swapped = replace(PAIR, leaf_map=(lambda left: {"a/kernel": left["mlp/~/linear_1/w"]}, by_hand))
    assert judge("pair", swapped, answer, measure=False).map_right


def test_a_wrong_right_answer_is_noticed(answer):
    score = judge("pair", replace(PAIR, verdict="different", bug="none"), answer, measure=False)
    assert not score.hand_right
    assert "outputs differ by" in " ".join(score.why)


def test_a_leaf_that_the_port_lacks_is_refused(answer):
    with pytest.raises(ValueError, match="names c/kernel, but the port has"):
        judge("pair", replace(PAIR, leaf_map=lambda left: {"c/kernel": 1}), answer, measure=False)


def test_a_table_counts_what_is_wrong(answer):
    right = judge("one", PAIR, answer, measure=False)
    wrong = judge("two", PAIR, replace(answer, verdict="different", why=("said",)), measure=False)
    text = published_run.markdown([right, wrong])
    assert "1 of 2 right, 1 with the opposite verdict." in text
    assert "- two: said" in text
    assert published_run.ratio(replace(right, seconds=6.0, compile_seconds=4.0)) == "6 ÷ 4 = 1.5"


def test_missing_packages_are_named():
    pair = replace(PAIR, needs=("no-such-package==1.0", "numpy"))
    assert pair.missing_packages() == ["no-such-package==1.0"]


def test_leaves_move_with_their_layer():
    left = {"one/w": 1, "one/b": 2, "one_more/w": 3}
    moved = move(left, {"one": "first", "one_more/w": "scale"})
    assert moved == {"first/w": 1, "first/b": 2, "scale": 3}
    assert swap_ends(moved, {"w": "kernel"}) == {"first/kernel": 1, "first/b": 2, "scale": 3}
