"""Large ports as their users run them: compared as they are computed, one probe after the other; nothing is kept."""

import weakref
from typing import Any

import jax.numpy as jnp
import pytest
from flax import linen as nn

from equiv.case import Case
from equiv.comparison import as_users
from equiv.comparison.numeric import held_outputs
from equiv.comparison.numeric.held_outputs import HeldOutputs
from equiv.comparison.numeric.user_outputs import UserOutputs
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import linear
from equiv.programs import compiled
from equiv.programs.user_calls import Runnable, UserCall, compile_user_call


class Dropping(nn.Module):
    """A model that draws."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(3, name="dense")(x))


DROPPING = Case(
    guide="none",
    models={"old": Dropping, "new": lambda: Dropping()},
    batch={"x": "float32[5,4]"},
    layers=(linear("dense", old="dense", new="dense"),),
    steps=2,
)


def compile_scaled(call: UserCall, options: Any = None) -> Runnable:
    """A compiler that is wrong, whatever it leaves out."""
    function = compile_user_call(call, options)

    def scaled(*arrays: Any) -> list[Any]:
        return [one * 1.001 if jnp.issubdtype(one.dtype, jnp.floating) else one for one in function(*arrays)]

    return scaled


def compiled_findings() -> list[tuple[Any, ...]]:
    """What the check `compiled` finds."""
    (check,) = [one for one in run_case(LoadedCase("dropping", "", DROPPING)).checks if one.check == "compiled"]
    return [(one.place, one.grade, one.probe, one.index, one.note, one.miscompiled) for one in check.findings]


@pytest.mark.parametrize("wrong", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parts_give_the_findings_of_the_whole(wrong, monkeypatch):
    monkeypatch.setenv(as_users.ASKED, "1")
    if wrong:
        monkeypatch.setattr(as_users, "compile_user_call", compile_scaled)
    whole = compiled_findings()
    alive, run = weakref.WeakSet[UserOutputs](), as_users.run_calls

    def run_and_remember(*arguments: Any) -> UserOutputs:
        assert wrong or not alive, "the run on an earlier probe is left"
        found = run(*arguments)
        assert isinstance(found.observed, HeldOutputs)
        assert isinstance(found.meaning, HeldOutputs)
        alive.add(found)
        return found

    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    monkeypatch.setattr(held_outputs, "LARGE_OUTPUT", 8)
    monkeypatch.setattr(as_users, "run_calls", run_and_remember)
    assert compiled_findings() == whole
    assert any(grade == "error" for _, grade, *_ in whole) == wrong
    assert not alive
