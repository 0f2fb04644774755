"""Large ports as their users run them: compared as they are computed, one probe after the other; nothing is kept."""

import weakref
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import pytest
from flax import linen as nn

from equiv.case import Case
from equiv.comparison import as_users
from equiv.comparison.numeric import held_outputs, user_outputs
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


class Plain(nn.Module):
    """A model that does not draw."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="dense")(x)


def test_without_draws_each_run_is_made_once(monkeypatch):
    """What users run is compared with what it means as it is held: once on each probe, natively."""
    monkeypatch.setenv(as_users.ASKED, "1")
    monkeypatch.setattr(compiled, "LARGE_TRAINING", 0)
    monkeypatch.setattr(held_outputs, "LARGE_OUTPUT", 8)
    runs: list[tuple[str, str]] = []
    for name in ("stream_calls", "stream_with_draws"):
        stream = getattr(user_outputs, name)

        def count(first: Any, probe: Any, *others: Any, name: str = name, stream: Any = stream) -> Any:
            port = first.programs.port if name == "stream_with_draws" else id(first)
            runs.append((name, f"{port} {probe.name}"))
            return stream(first, probe, *others)

        monkeypatch.setattr(user_outputs, name, count)
    case = replace(DROPPING, models={"old": Plain, "new": lambda: Plain()})
    assert run_case(LoadedCase("plain", "", case)).verdicts == {"new": "same"}
    # The executable that is compared runs once to be held, and once beside what users run.
    assert sorted(set(map(runs.count, runs))) == [1, 2]
    assert {name for name, where in runs if runs.count((name, where)) == 1} == {"stream_calls"}
