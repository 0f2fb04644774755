"""Ports that cheat, or are wrong in a place that is easily missed; and how to judge them.

None of them may be called `same` without its limit being said. Each names what has to be said; a port that nothing can
notice because it is the same at these shapes says so.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import equiv
from equiv.core.results import CaseResult
from equiv.layers import embed, linear
from equiv.report.scopes import describe_scopes

ROWS = (linear("l", left="l", right="l"),)
FEATURES = 3


@dataclass(frozen=True)
class Cheat:
    """A wrong port.

    Attributes:
        name: what is wrong, in a few words.
        family: the kind of cheat.
        left: builder of the reference.
        right: builder of the wrong port.
        batch: of the case.
        layers: of the case.
        says: a pattern that has to be in what is told, where the verdict is `same`; empty: it must not be `same`.
        refused: a pattern of the error that the port gets; empty: it gets a verdict.
    """

    name: str
    family: str
    left: Callable[..., Any]
    right: Callable[..., Any]
    batch: dict[str, str]
    layers: tuple[Any, ...] = ROWS
    says: str = ""
    refused: str = ""


class Port(Protocol):
    """What is judged: builders, and what a case has beside them."""

    left: Callable[..., Any]
    right: Callable[..., Any]
    batch: dict[str, str]
    layers: tuple[Any, ...]


def judge(port: Port) -> tuple[str, str]:
    """The verdict, and all that is told beside it.

    Raises:
        EquivError: the port cannot be used.
    """
    result = equiv.compare(
        port.left,
        port.right,
        batch=port.batch,
        layers=port.layers,
        steps=3,
        names=("left", "right"),
    )
    return result.verdict, f"{result.headline} {' '.join(told(result.cases[0]))}"


def is_caught(cheat: Cheat, verdict: str, words: str) -> bool:
    """Whether it is different, or its limit is said."""
    if verdict == "error":
        return bool(cheat.refused and re.search(cheat.refused, words))
    return verdict != "same" or bool(cheat.says and re.search(cheat.says, words))


def told(case: CaseResult) -> Iterator[str]:
    """What a user reads of a case beside the verdicts: scope, remarks, notes, trials."""
    yield from describe_scopes([case])
    if case.scope is not None:
        yield from (one.text for one in case.scope.unexercised)
    for check in case.checks:
        yield from check.remarks
        yield from (finding.note for finding in check.findings)
        yield from (word for finding in check.findings for word in finding.rewrites)
    yield from (trial.title + trial.note for trial in case.trials if not trial.detected)


def dense(function: Callable[..., Any], features: int = FEATURES) -> Callable[[], Any]:
    """A layer, and a function of what it gives."""

    def build():
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return function(nn.Dense(features, name="l")(x))

        return Model()

    return build


def random(function: Callable[..., Any]) -> Callable[[], Any]:
    """A layer, and a function of what it gives and of a key of the call."""

    def build():
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return function(nn.Dense(FEATURES, name="l")(x), self.make_rng("dropout"))

        return Model()

    return build


def tokens(function: Callable[..., Any], rows: int = 50) -> Callable[[], Any]:
    """A table, and a function of it and of the tokens."""

    def build():
        class Model(nn.Module):
            @nn.compact
            def __call__(self, ids):
                table = self.param("embedding", nn.initializers.normal(), (rows, 4))
                return function(table, ids)

        return Model()

    return build


def trained(optimizer: Callable[[], Any], change: Callable[[Any], Any] = lambda grads: grads):
    """A layer with a train step of its own; `change` is applied to the gradients."""

    def build():
        model, tx = nn.Sequential([nn.Dense(FEATURES)]), optimizer()

        def create(params):
            return tx.init(params)

        def step(params, opt_state, x):
            grads = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, x) ** 2))(params)
            updates, opt_state = tx.update(change(grads), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return model, step, create

    return build


X = {"x": "float32[5,4]"}
IDS = {"ids": "int32[2,6]:50"}
TABLE = (embed("e", left="", right=""),)
STEP_ROWS = (linear("l", left="layers_0", right="layers_0"),)


def forward(name, family, left, right, says="", **others):
    """A cheat in a forward function."""
    return Cheat(name, family, dense(left), dense(right), X, says=says, **others)
