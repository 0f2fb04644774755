"""One linear layer in every library, with train steps of its own that keep the optimizer's state in many forms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.layers import linear

ROW = linear("fc", haiku="fc", linen="fc", nnx="fc")


@dataclass(frozen=True)
class Form:
    """How a port keeps its optimizer's state.

    Attributes:
        put: state and parameters to what is carried at first.
        take: what is carried to the state.
        after: what is carried, state and parameters to what is carried after a step; None: as `put`.
    """

    put: Callable[[Any, Any], Any] = lambda state, _: state
    take: Callable[[Any], Any] = lambda kept: kept
    after: Callable[[Any, Any, Any], Any] | None = None

    def following(self, kept, state, params):
        """What is carried after a step."""
        return self.put(state, params) if self.after is None else self.after(kept, state, params)


def average(kept, params, decay=0.9):
    """A moving average of parameters."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, kept, params)


FORMS = {
    "flat": Form(),
    "deeper": Form(lambda state, _: {"opt": state}, lambda kept: kept["opt"]),
    "much deeper": Form(lambda state, _: {"train": [{"inner": state}]}, lambda kept: kept["train"][0]["inner"]),
    "beside a step": Form(
        lambda state, _: {"opt": state, "taken": 0},
        lambda kept: kept["opt"],
        lambda kept, state, _: {"opt": state, "taken": kept["taken"] + 1},
    ),
    "beside an average": Form(
        lambda state, params: {"average": params, "opt": state},
        lambda kept: kept["opt"],
        lambda kept, state, params: {"average": average(kept["average"], params), "opt": state},
    ),
    "in a tuple with an average": Form(
        lambda state, params: (params, state),
        lambda kept: kept[1],
        lambda kept, state, params: (average(kept[0], params), state),
    ),
}


def loss(outputs):
    """The mean square, as the default loss."""
    return (outputs**2).mean()


def functional_step(call, tx, form, of=loss):
    """A train step and `create` for a model whose parameters are a pytree; `of` is the loss of its outputs."""

    def create(params):
        return form.put(tx.init(params), params)

    def step(params, opt_state, x):
        gradients = jax.grad(lambda params: of(call(params, x)))(params)
        updates, state = tx.update(gradients, form.take(opt_state), params)
        params = optax.apply_updates(params, updates)
        return params, form.following(opt_state, state, params)

    return step, create


def haiku_port(tx, form=FORMS["flat"], of=loss):
    """The layer in Haiku; without a transformation it has no train step."""

    def build():
        import haiku as hk

        model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2, name="fc")(x)))
        return model if tx is None else (model, *functional_step(model.apply, tx, form, of))

    return build


def linen_port(tx, form=FORMS["flat"]):
    """The layer in Linen; without a transformation it has no train step."""

    def build():
        import flax.linen as nn

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(2, name="fc")(x)

        model = Net()
        step = () if tx is None else functional_step(lambda params, x: model.apply({"params": params}, x), tx, form)
        return (model, *step) if step else model

    return build


def averaged_port(tx, decay=0.9):
    """The layer in Linen with a train state that keeps an average of its parameters, before them in its pytree."""

    def build():
        from flax import struct

        class Averaged(struct.PyTreeNode):
            average: Any
            params: Any
            opt_state: Any

            def apply_gradients(self, gradients):
                updates, state = tx.update(gradients, self.opt_state, self.params)
                params = optax.apply_updates(self.params, updates)
                return Averaged(average(self.average, params, decay), params, state)

        model = linen_port(None)()

        def create(params):
            return Averaged(params, params, tx.init(params))

        def step(state, x):
            return state.apply_gradients(
                jax.grad(lambda params: loss(model.apply({"params": params}, x)))(state.params)
            )

        return model, step, create

    return build


def nnx_port(tx):
    """The layer in NNX; without a transformation it has no train step."""

    def build(rngs):
        from flax import nnx

        class Net(nnx.Module):
            def __init__(self):
                self.fc = nnx.Linear(4, 2, rngs=rngs)

            def __call__(self, x):
                return self.fc(x)

        @nnx.jit
        def step(model, optimizer, x):
            optimizer.update(model, nnx.grad(lambda model: loss(model(x)))(model))

        return Net() if tx is None else (Net(), step, lambda model: nnx.Optimizer(model, tx, wrt=nnx.Param))

    return build


PORTS = {"haiku": haiku_port, "linen": linen_port, "nnx": nnx_port}


def case_of(**models) -> Case:
    """The case of two or more of these ports, named after their libraries."""
    return Case(guide="ours", models=models, batch={"x": "float32[5,4]"}, layers=(ROW,))


def loaded_case(**models) -> LoadedCase:
    """The same, as if read from a file."""
    return LoadedCase("trained", "A linear layer.", case_of(**models))
