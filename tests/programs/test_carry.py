"""The carry of training by name: the same slot has one name, wherever and in whatever a port keeps it."""

from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest
import trained_ports
from flax import struct
from flax.training.train_state import TrainState

from equiv.core.output_name import InputName, bookkeeping_input, leaf_input, optimizer_count, optimizer_slot
from equiv.programs.built_case import build_case
from equiv.programs.carry import map_carry_leaves

LEAVES = ("fc/bias", "fc/kernel")
PARAMS = {leaf_input(leaf) for leaf in LEAVES}


def slots(*roles: str, number: int = 1) -> set[InputName]:
    return {optimizer_slot(role, leaf, number) for role in roles for leaf in LEAVES}


@cache
def tracer():
    """The tracer of the Linen port, whose parameters are `params/fc/...`."""
    return build_case(trained_ports.case_of(linen=trained_ports.linen_port(None))).tracers["linen"]


def named(carry: Any) -> list[InputName]:
    """The names of a carry's leaves; no two may be the same."""
    names = [leaf.name for held in map_carry_leaves(tracer(), carry) for leaf in held]
    assert len(set(names)) == len(names), "two leaves of the carry have one name"
    return names


def parameters() -> dict[str, Any]:
    return {"fc": {"kernel": np.zeros((4, 2), "f4"), "bias": np.zeros(2, "f4")}}


ADAM = {*slots("mu", "nu"), optimizer_count("count", ("mu", "nu"))}

TRANSFORMS = {
    "adam": (optax.adam(0.1), ADAM),
    "momentum": (optax.sgd(0.1, momentum=0.9), slots("trace")),
    "adam in a chain": (optax.chain(optax.clip(1.0), optax.chain(optax.identity(), optax.adam(0.1))), ADAM),
    "adam with a schedule": (optax.adam(optax.cosine_decay_schedule(0.1, 9)), {*ADAM, optimizer_count("count")}),
    "masked adam": (optax.masked(optax.adam(0.1), True), ADAM),
    "adam with its rate as state": (
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        {*ADAM, optimizer_count("count"), *map(optimizer_count, ("b1", "b2", "eps", "eps_root", "learning_rate"))},
    ),
    "several small steps": (
        optax.MultiSteps(optax.adam(0.1), 2),
        {
            *ADAM,
            *slots("acc_grads"),
            *(optimizer_count(role, ("acc_grads",)) for role in ("mini_step", "gradient_step")),
        },
    ),
    "an average of updates": (
        optax.chain(optax.adam(0.1), optax.ema(0.9)),
        {*ADAM, *slots("ema"), optimizer_count("count", ("ema",))},
    ),
    "two momenta": (
        optax.chain(optax.trace(0.9), optax.trace(0.5)),
        {*slots("trace"), *slots("trace", number=2)},
    ),
    "a part for each leaf": (
        optax.partition({"a": optax.adam(0.1), "b": optax.adam(0.2)}, {"fc": {"kernel": "a", "bias": "b"}}),
        {*ADAM, optimizer_count("count", ("mu", "nu"), 2)},
    ),
}


@pytest.mark.parametrize("form", trained_ports.FORMS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_slots_are_named_by_role_wherever_they_are(transform, form):
    """Only what is kept beside the optimizer's state adds to its names."""
    tx, wanted = TRANSFORMS[transform]
    params = parameters()
    found = set(named({"params": params, "opt_state": trained_ports.FORMS[form].put(tx.init(params), params)}))
    assert PARAMS | wanted <= found
    assert {name.leaf or name.path for name in found - PARAMS - wanted} <= {*LEAVES, "opt_state/taken"}


def test_a_tree_of_variables_is_optimized_under_the_same_names():
    """As `{"params": ...}`, which is what `init` of Linen returns."""
    whole = {"params": parameters()}
    assert set(named({**whole, "opt_state": optax.adam(0.1).init(whole)})) == PARAMS | ADAM


class Averaged(TrainState):
    """A train state with an average of the parameters."""

    ema_params: Any


class Ahead(struct.PyTreeNode):
    """A train state whose average comes first in its pytree."""

    average: Any
    step: int
    params: Any
    opt_state: Any


def test_an_average_in_a_train_state_is_not_the_parameters():
    params, tx = parameters(), optax.adam(0.1)
    state = Averaged.create(apply_fn=None, params=params, tx=tx, ema_params=params)
    assert set(named({"state": state})) == PARAMS | ADAM | slots("ema_params") | {bookkeeping_input("step")}
    ahead = Ahead(params, 0, params, tx.init(params))
    assert set(named({"state": ahead})) == PARAMS | ADAM | slots("average") | {bookkeeping_input("step")}


def test_the_variable_of_two_is_the_one_nearest_the_root():
    """As in NNX, whose model is at the top of the carry without a name of its collection."""
    params = parameters()
    names = named((params, {"kept": {"average": params}}))
    assert names[:2] == [leaf_input(leaf) for leaf in LEAVES]
    assert set(names[2:]) == slots("average")


def test_two_counts_of_one_name_are_both_kept():
    names = named({"params": parameters(), "a": {"step": 0}, "b": {"step": 0}})
    assert {bookkeeping_input("step"), bookkeeping_input("step", 2)} <= set(names)


def test_a_slot_without_a_role_is_named_by_its_parameter():
    """Where the optimizer's state is one tree like the parameters'."""
    assert slots("") < set(named({"params": parameters(), "opt_state": parameters()}))
    assert str(optimizer_slot("", "fc/kernel")) == "opt_state/fc/kernel"


def test_every_library_names_its_slots_alike():
    """Each through its own train step; NNX has a count of steps of its own."""
    case = trained_ports.case_of(**{name: make(optax.adam(0.1)) for name, make in trained_ports.PORTS.items()})
    found = {}
    for name, one in build_case(case).tracers.items():
        carry = jax.eval_shape(one.port.init_training, dict(one.port.leaves), jax.random.key(0))
        found[name] = {leaf.name for held in map_carry_leaves(one, carry) for leaf in held}
    assert found["haiku"] == found["linen"] == found["nnx"] - {bookkeeping_input("step")} == PARAMS | ADAM
