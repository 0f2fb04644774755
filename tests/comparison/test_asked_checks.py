"""Only some checks are asked for: what the others need is not traced, and the scope says what is left out."""

import flax.linen as nn
import jax
import pytest

import equiv
from equiv.core.checks import read_checks
from equiv.errors import CaseError, EquivError

BATCH = {"x": "f32[2,3]"}


@jax.custom_vjp
def forward_only(x):
    return x


def no_backward(*_):
    raise TypeError("only the forward pass is ported")


forward_only.defvjp(no_backward, no_backward)


class Left(nn.Module):
    scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        return self.scale * nn.Dense(2, name="l")(x)


class Right(Left):
    """A port of which the backward pass is still missing."""

    @nn.compact
    def __call__(self, x):
        return forward_only(self.scale * nn.Dense(2, name="l")(x))


def judge(left, right, **given):
    (case,) = equiv.compare(left, right, batch=BATCH, steps=1, **given).cases
    (verdict,) = case.verdicts.values()
    return verdict, case


def test_a_forward_pass_alone_is_compared_and_said():
    verdict, case = judge(Left, Right, checks=("outputs",))
    assert (verdict, [check.check for check in case.checks]) == ("same", ["structure", "outputs"])
    left_out = "not compared, as other checks are asked for: randomness, gradients, state, train, sharding, compiled"
    assert left_out in case.scope.notes
    assert (case.scope.steps, case.scope.gradient_modes) == (0, ())


def test_a_check_that_is_asked_for_decides():
    other = lambda: Right(1.5)  # noqa: E731 - a builder
    assert judge(Left, other, checks=["outputs", "structure"])[0] == "different"


def test_without_checks_the_missing_pass_is_an_error():
    (case,) = equiv.compare(Left, Right, batch=BATCH, steps=1).cases
    assert set(case.verdicts.values()) == {"error"}


def test_names_of_checks_are_read_or_refused():
    assert read_checks("outputs, gradients") == ("outputs", "gradients")
    for given, message in (("outputs,speed", "there is no check 'speed'"), (" , ", "it names none")):
        with pytest.raises(EquivError, match=rf"--checks '.*': {message}\. Name some of structure"):
            read_checks(given)
    for wrong in ((), "outputs", ("speed",)):
        with pytest.raises(CaseError, match=r"checks is .*, wanted a tuple of some of structure, randomness"):
            equiv.compare(Left, Right, batch=BATCH, checks=wrong)
