"""Two faults at once, one forward and one in the gradient or the optimizer: both are found, and no third one."""

import re

import pytest
from helpers import case_from
from locate_run import find_divergences_of

from equiv.comparison.explain.divergence import explain_programs, group_refuted
from equiv.comparison.explain.explanation import Explanation
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.core.divergence import Divergence
from equiv.core.output_name import STEP

SOURCE = '''
"""A norm between two layers, a rule of its own, and Adam with clipped gradients: in Haiku and in Linen."""

import jax
import jax.numpy as jnp
import optax
from equiv.case import Case
from equiv.layers import layer_norm, linear

def make_rule(share):
    @jax.custom_vjp
    def damped(x):
        return x

    damped.defvjp(lambda x: (x, None), lambda _, g: (share * g,))
    return damped

def train(apply, tx):
    def step(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(lambda params: ((apply({"params": params}, x) - y) ** 2).mean())(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step

def haiku():
    import haiku as hk

    damped = make_rule(0.5)

    def forward(x):
        x = jnp.tanh(hk.Linear(4, name="first")(x))
        x = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)
        return hk.Linear(2, name="last")(damped(x))

    model = hk.without_apply_rng(hk.transform(forward))
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1),
        optax.scale(-1e-2),
    )
    return model, train(lambda variables, x: model.apply(variables["params"], x), tx), tx.init

def linen():
    from flax import linen as nn

    damped = make_rule(0.5)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Dense(4, name="first")(x))
            x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
            return nn.Dense(2, name="last")(damped(x))

    model = Model()
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1),
        optax.scale(-1e-2),
    )
    return model, train(model.apply, tx), tx.init

CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[3,4]", "y": "float32[3,2]"},
    methods={"__call__": ("x",)},
    loss=lambda outputs, batch: ((outputs - batch["y"]) ** 2).mean(),
    layers=(
        linear("first", haiku="first", linen="first"),
        layer_norm("norm", haiku="norm", linen="norm"),
        linear("last", haiku="last", linen="last"),
    ),
    steps=1,
)
'''

FORWARD = {
    "epsilon": ("epsilon=1e-5", "epsilon=1e-3", "epsilon 1e-05 in place of 0.001"),
    "function": ("jnp.tanh(nn.Dense", "jax.nn.relu(nn.Dense", "tanh in place of relu"),
}

BEHIND = {
    "rate": ("scale(-1e-2)", "scale(-1e-3)", "0.01 in place of 0.001"),
    "b2": ("scale_by_adam()", "scale_by_adam(b2=0.9)", "b2 0.999 in place of 0.9"),
    "clipping": ("norm(0.1)", "norm(0.4)", "the clipping norm 0.1 in place of 0.4"),
    "held": ('name="last")(damped(x))', 'name="last")(damped(jax.lax.stop_gradient(x)))', "no `stop_gradient`"),
    "rule": ("make_rule(0.5)", "make_rule(-0.5)", "the factor 0.5 in place of -0.5"),
}


def plant(*faults: tuple[str, str, str]) -> str:
    """The source with faults in the second builder."""
    start = SOURCE.index("def linen")
    first, second = SOURCE[:start], SOURCE[start:]
    for old, new, _ in faults:
        assert old in second
        second = second.replace(old, new, 1)
    return first + second


def found_in(source: str) -> tuple[Divergence, ...]:
    return find_divergences_of(source, "beyond", "linen")[0]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("forward", FORWARD)
def test_a_fault_behind_a_forward_one_is_found(forward: str, behind: str):
    """Each with its cause, and nothing else."""
    faults = FORWARD[forward], BEHIND[behind]
    found = found_in(plant(*faults))
    assert len(found) == 2
    for one, (_, _, wanted) in zip(found, faults, strict=True):
        assert wanted in one.causes[0].text
        assert one.causes[0].within


@pytest.mark.parametrize("forward", FORWARD)
def test_a_forward_fault_alone_is_the_only_one(forward: str):
    """What it makes of gradients and updates is no second fault."""
    (one,) = found_in(plant(FORWARD[forward]))
    assert FORWARD[forward][2] in one.causes[0].text


def test_without_a_cause_no_gradient_is_explained_by_it():
    """A function that none of the known ones is: the optimizers are still compared, on equal gradients."""
    odd = ("jnp.tanh(nn.Dense", "(lambda x: jnp.sinh(x) * jnp.cos(3 * x))(nn.Dense", "")
    (first, *rest) = found_in(plant(odd, BEHIND["b2"]))
    assert not first.causes
    assert [one.program for one in rest if one.causes] == [STEP]
    assert not [one for one in found_in(plant(odd)) if one.program == STEP]


def explained(source: str) -> dict[str, Explanation | str]:
    """Every program of a case, as `equiv locate` walks it."""
    from locate_run import make_checks

    state = trace_ports(check_structure(open_case(case_from(source, "beyond"))))
    left, right = state.traced["haiku"], state.traced["linen"]
    probes = make_probes(state.built_case, left.table)
    refuted = group_refuted(make_checks(left, right, probes[0], 1), left, right)
    return {str(name): found for name, found in explain_programs(refuted, left, right, probes, 1)}


def test_what_follows_is_said_and_not_listed():
    """Of each program that has no difference of its own, instead of places without a cause."""
    found = explained(plant(FORWARD["epsilon"]))
    assert isinstance(found.pop("call __call__"), Explanation)
    assert found
    assert all(isinstance(one, str) and one.startswith("it follows from what differs") for one in found.values())


def test_the_second_fault_is_listed_in_its_program():
    """And the gradient, in which nothing else differs, follows."""
    found = explained(plant(FORWARD["epsilon"], BEHIND["rate"]))
    step = found.pop("step")
    assert isinstance(step, Explanation)
    assert re.search(BEHIND["rate"][2], step.divergences[0].causes[0].text)
    assert sum(isinstance(one, str) for one in found.values()) == len(found) - 1
