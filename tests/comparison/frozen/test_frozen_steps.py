"""What a frozen reference is run with: its train step, its learning rate, and probes at its own edges."""

from dataclasses import replace
from functools import cache

import helpers
import optax
import pytest
import trained_ports
from comparison.frozen.frozen_cases import compare_with_frozen

from equiv.comparison.frozen.bundle import FrozenReference, decode_bundle, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.core.case_files import LoadedCase
from equiv.errors import EquivError

ADAM, NONE = optax.adam(0.1), None


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "places"),
    [
        (ADAM, ADAM, "same", 7),
        (NONE, NONE, "same", 3),
        (ADAM, NONE, "inconclusive", 1),
        (NONE, ADAM, "inconclusive", 4),
    ],
    ids=["own", "default", "only-frozen", "only-new"],
)
def test_a_one_sided_step_is_not_compared_with_a_bundle(ours, theirs, verdict, places):
    """The frozen step cannot be replaced by the default one; that of the other port can."""
    case = trained_ports.loaded_case(linen=trained_ports.linen_port(ours), nnx=trained_ports.nnx_port(theirs))
    frozen = decode_bundle(encode_bundle(freeze_reference(case)), "trained")
    found = compare_with_frozen(case, frozen)
    assert found.verdicts == {"nnx": verdict}
    (train,) = [check for check in found.checks if check.check == "train"]
    assert len(train.findings) == places
    if verdict == "inconclusive":
        having = "linen" if ours else "nnx"
        assert train.summary.startswith(f"training is not compared: only {having} has a train step of its own.")


def test_a_lowered_default_rate_is_that_of_the_bundle():
    models = {"linen": trained_ports.linen_port(None), "nnx": trained_ports.nnx_port(None)}
    case = replace(trained_ports.case_of(**models), loss=lambda outputs, _: 1e4 * (outputs**2).mean())
    frozen = freeze_reference(LoadedCase("trained", "", case))
    assert frozen.default_rate < 0.1
    found = compare_with_frozen(LoadedCase("trained", "", case), frozen)
    assert found.verdicts == {"nnx": "same"}
    (remark,) = [check.remarks[0] for check in found.checks if check.check == "train"]
    assert f"optax.sgd({frozen.default_rate:g})" in remark


ACTIVATION = """
from equiv.case import Case
from equiv.layers import linear


def build(change):
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return change(nn.Dense(3, name="d")(x), jnp)

    return Model()


def old():
    return build(lambda y, jnp: {"cap": jnp.where(y > 60, 0.0, y), "top": jnp.argmax(y, -1), "one": y * 1.0})


def new():
    return build(lambda y, jnp: {"cap": CAP, "top": TOP, "one": y * 1.0})


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"x": "float32[5,4]"},
    layers=(linear("d", old="d", new="d"),),
    loss=lambda outputs, batch: (outputs["one"] ** 2).mean() + (outputs["cap"] ** 2).mean(),
    steps=2,
)
"""


def activation(cap: str, top: str) -> LoadedCase:
    source = ACTIVATION.replace("CAP", cap).replace("TOP", top)
    return LoadedCase("activation", "", helpers.case_from(source, "activation"))


@cache
def frozen_activation() -> FrozenReference:
    case = activation("y", "jnp.argmax(y, -1)")
    return decode_bundle(encode_bundle(freeze_reference(case)), "activation")


def test_a_frozen_reference_has_edge_probes_of_its_own():
    """One output differs above 60 only, one at ties only; neither is in reach of an ordinary probe."""
    result = compare_with_frozen(activation("y", "2 - jnp.argmax(y[:, ::-1], -1)"), frozen_activation())
    (outputs,) = (check for check in result.checks if check.check == "outputs")
    found = {one.output.path: one.probe for one in outputs.findings if one.grade == "refuted"}
    assert found == {"cap": "around 60", "top": "zero inputs"}


def test_what_only_the_candidate_asks_is_said():
    """The frozen reference cannot be run where only the candidate has a threshold."""
    cap = "jnp.where(y > 60, 0.0, jnp.where(y < -1e4, 1.0, y))"
    result = compare_with_frozen(activation(cap, "jnp.argmax(y, -1)"), frozen_activation())
    assert result.verdicts == {"new": "same"}
    places = [one.text for one in result.scope.unexercised if one.kind == "unaimed"]
    assert len(places) == 1
    assert places[0].startswith("no probe of the frozen reference is made for its threshold < -10000")
    assert {"around 60", "zero inputs", "small inputs"} <= set(result.scope.edges)


def test_a_reference_that_refuses_edges_is_frozen_without_them(monkeypatch):
    def refuse(*_):
        raise EquivError("old: only zeros.")

    monkeypatch.setattr("equiv.comparison.frozen.edges.run_reference_edges", refuse)
    case = activation("y", "jnp.argmax(y, -1)")
    frozen = freeze_reference(case)
    assert (frozen.edges, frozen.edges_refused) == ((), "old: only zeros.")
    scope = compare_with_frozen(case, frozen).scope
    assert "nothing was tried beyond ordinary values: old: only zeros" in scope.notes
