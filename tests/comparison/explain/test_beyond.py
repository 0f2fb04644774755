"""Two faults at once, one forward and one in the gradient or the optimizer: both are found, and no third one."""

import re

import pytest
from helpers import case_from
from locate_run import find_divergences_of, make_checks
from stepped_models import BEHIND, FORWARD, plant

from equiv.comparison.explain.divergence import explain_programs, group_refuted
from equiv.comparison.explain.explanation import Explanation
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.core.divergence import Divergence
from equiv.core.output_name import STEP


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


USUAL = """
def make_rule(share):
    @jax.custom_jvp
    def damped(x):
        return x

    @damped.defjvp
    def damped_jvp(primals, tangents):
        return primals[0], share * tangents[0]

    return damped
"""


@pytest.mark.parametrize("behind", [None, "rule", "held"])
def test_a_rule_for_forward_mode_stays_one(behind: str | None):
    """Of a user's `custom_jvp` too: one that both have is no second fault, and another one is."""
    faults = (FORWARD["epsilon"],) if behind is None else (FORWARD["epsilon"], BEHIND[behind])
    source = plant(*faults)
    start, end = source.index("def make_rule"), source.index("def train")
    found = found_in(source[:start] + USUAL + "\n" + source[end:])
    assert [one.program.is_gradient for one in found] == [False, True][: len(faults)]


def test_beside_draws_no_rule_is_taken_for_a_fault():
    """Where what is drawn becomes an input, rules of derivatives are lost: then nothing is said of them."""
    source = plant(FORWARD["epsilon"])
    source = source.replace("(damped(x))", "(damped(x) * (1 + jax.random.uniform(jax.random.key(3), (4,))))")
    assert not [one for one in found_in(source) if one.program.is_gradient]


def test_without_a_cause_no_gradient_is_explained_by_it():
    """A function that none of the known ones is: the optimizers are still compared, on equal gradients."""
    odd = ("jnp.tanh(nn.Dense", "(lambda x: jnp.sinh(x) * jnp.cos(3 * x))(nn.Dense", "")
    (first, *rest) = found_in(plant(odd, BEHIND["b2"]))
    assert not first.causes
    assert [one.program for one in rest if one.causes] == [STEP]
    assert not [one for one in found_in(plant(odd)) if one.program == STEP]


def explained(source: str) -> dict[str, Explanation | str]:
    """Every program of a case, as `equiv locate` walks it."""
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
