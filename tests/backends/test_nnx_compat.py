"""Ports half-way to tree mode: `flax.nnx.compat` has NNX's functions as they were, with graphs and updates in place."""

import jax
import optax
import pytest
from flax import nnx
from helpers import just

import equiv

BATCH = {"x": "float32[5,4]", "y": "float32[5,3]"}
compat = nnx.compat


class Block(nnx.Module):
    def __init__(self, rngs, rate=0.3):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return x + nnx.tanh(self.dropout(self.norm(self.linear(x))))


class Plain(nnx.Module):
    """Without any function of `nnx.compat`."""

    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.hidden(x))

    def hidden(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Recomputed(Plain):
    def hidden(self, x):
        for block in self.blocks:
            x = compat.remat(lambda block, x: block(x))(block, x)
        return x


class Compiled(Plain):
    def hidden(self, x):
        for block in self.blocks:
            x = compat.jit(lambda block, x: block(x))(block, x)
        return x


class Merged(Plain):
    """A block is split, and its copy run; its new state goes back."""

    def hidden(self, x):
        for block in self.blocks:
            copy = nnx.merge(*compat.split(block))
            x = copy(x)
            nnx.update(block, compat.state(copy))
        return x


class Scanned(nnx.Module):
    """Layers that are made by `vmap` and called by `scan`."""

    rate = 0.3

    def __init__(self, rngs):
        make = compat.split_rngs(splits=2)(compat.vmap(lambda rngs: Block(rngs, self.rate), in_axes=0, out_axes=0))
        self.blocks = make(rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        step = compat.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(step(x, self.blocks))


class ScannedWithAnotherRate(Scanned):
    rate = 0.4


class NotUpdated(Merged):
    """The new state of the copy is lost."""

    def hidden(self, x):
        for block in self.blocks:
            x = compat.clone(block)(x)
        return x


def verdict(one, two, checks):
    (case,) = equiv.compare(one, two, batch=BATCH, methods=("__call__(x)",), checks=checks).cases
    return str(case.verdicts[case.candidates[0]])


@pytest.mark.parametrize("port", [Scanned, Merged, Recomputed, Compiled])
def test_a_model_with_functions_of_compat_is_the_same(port):
    assert verdict(lambda rngs: Plain(rngs), lambda rngs: port(rngs), just("outputs", "randomness")) == "same"


@pytest.mark.quick(1)
@pytest.mark.parametrize("port", [NotUpdated, ScannedWithAnotherRate])
def test_faults_in_functions_of_compat_are_found(port):
    assert verdict(lambda rngs: Plain(rngs), lambda rngs: port(rngs), just("outputs", "state")) == "different"


def loss_of(model, x, y):
    return ((model(x) - y) ** 2).mean()


def plain_step(rngs):
    model = Plain(rngs)

    @nnx.jit
    def train_step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(loss_of)(model, x, y))

    return model, train_step, lambda model: nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


def compat_step(rngs, rate=1e-2):
    model = Plain(rngs)

    @compat.jit
    def train_step(model, optimizer, x, y):
        _, gradients = compat.value_and_grad(loss_of)(model, x, y)
        optimizer.update(model, gradients)

    return model, train_step, lambda model: nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)


def split_step(rngs):
    """The step is jax's own, of a state that `compat.split` gives."""
    model = Plain(rngs)

    def train_step(model, optimizer, x, y):
        graph, state = compat.split((model, optimizer))

        @jax.jit
        def pure(state):
            model, optimizer = nnx.merge(graph, state)
            optimizer.update(model, compat.grad(loss_of)(model, x, y))
            return compat.state((model, optimizer))

        nnx.update((model, optimizer), pure(state))

    return model, train_step, lambda model: nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


@pytest.mark.quick(1)
@pytest.mark.parametrize("step", [compat_step, split_step])
def test_a_train_step_with_functions_of_compat_is_the_same(step):
    assert verdict(plain_step, step, just("train")) == "same"


@pytest.mark.slow
def test_a_fault_in_a_train_step_of_compat_is_found():
    assert verdict(plain_step, lambda rngs: compat_step(rngs, 2e-2), just("train")) == "different"
