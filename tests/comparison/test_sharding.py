"""What ports say of the sharding of their leaves: differences are named on the leaf, with both sides and the fix."""

from dataclasses import replace

import pytest
from sharded_ports import HEAD, RULES, Names, case, linen, nnx_model

from equiv.backends.sharding import make_mesh, within_mesh
from equiv.comparison.case_result import describe_scope
from equiv.comparison.meshes.stage import compare_sharding
from equiv.comparison.pipeline import run_case
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.comparison.state import CaseState, advance
from equiv.core.case import Case, Layer
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.errors import CaseError


def compared(given: Case, trains: bool = False) -> CaseState:
    """A case after the stage; its train step is traced where that is asked, and nothing is compiled."""
    stages = (trace_ports, compare_sharding) if trains else (compare_sharding,)
    return advance(check_structure(open_case(given)), stages)


def found(given: Case, trains: bool = False):
    """The check, or None."""
    return next(
        (one for one in compared(given, trains).checks if one.check == "sharding" and one.grade != "blocked"), None
    )


@pytest.fixture(scope="module")
def same():
    return found(case(linen(), nnx_model()))


def test_equal_names_of_all_leaves_are_exact(same):
    assert (same.grade, len(same.findings)) == ("exact", 3)


def test_logical_names_equal_names_of_the_mesh_by_rules():
    names = Names(up=(None, "model"), down=("model", None))
    assert found(case(linen(), nnx_model(names))).grade == "exact"


FAULTS = {
    "axis swapped": ({"up": HEAD}, {}, "leaf up/kernel", "the axes are swapped in nnx. Give up.kernel"),
    "missing": ({"down": None}, {}, "leaf down/kernel", "nnx does not say how it is sharded"),
    "scan axis lost": ({"stack": None}, {}, "leaf stack/kernel", "along which layers are stacked has lost its own"),
    "rule lost": (
        {},
        {"rules": {"linen": RULES, "nnx": {"embed": None}}},
        "leaf up/kernel",
        "Both name the same axes: mend the rules of nnx for mlp.",
    ),
    "optimizer state resharded": (
        {"optimizer": ("mlp", "embed")},
        {},
        "leaf opt_state/trace/up/kernel",
        "the axes are swapped in nnx. Give opt_state/trace/up/kernel, which the optimizer of nnx keeps, the names "
        "(embed, mlp).",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refuted_on_its_leaf(fault):
    names, options, place, note = FAULTS[fault]
    result = found(case(linen(), nnx_model(replace(Names(), **names)), **options), trains="optimizer" in names)
    assert result.grade == "refuted"
    finding = next(one for one in result.findings if one.place == place)
    assert finding.grade == "refuted"
    assert note in finding.note
    said = {"down/kernel": "(mlp, embed)", "stack/kernel": "(layers, embed, mlp)"}
    assert finding.reference.startswith(said.get(place.removeprefix("leaf "), "(embed, mlp)"))


def test_no_other_check_sees_an_annotation():
    """The whole run of a port whose names are swapped: everything else is equal."""
    given = case(linen(), nnx_model(replace(Names(), up=HEAD)), meshes=())
    result = run_case(LoadedCase("swapped", "", given))
    assert dict(result.verdicts) == {"nnx": "different"}
    refused = {one.check for one in result.checks if one.grade not in (*EQUAL_GRADES, "expected")}
    assert refused == {"sharding"}
    assert {"structure", "outputs", "gradients", "train"} <= {one.check for one in result.checks}


def stepping(spec):
    """A port with a train step, which places what its optimizer keeps by a constraint; None: it does not."""

    def build():
        import flax.linen as nn
        import jax
        import optax

        init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
        model, tx = nn.Dense(8, use_bias=False, kernel_init=init), optax.sgd(0.1, momentum=0.9)

        def create(params):
            made = tx.init(params)
            return made if spec is None else jax.lax.with_sharding_constraint(made, spec)

        def train_step(params, opt_state, x):
            grads = jax.grad(lambda params: (model.apply({"params": params}, x) ** 2).mean())(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return model, train_step, create

    return build


def test_optimizer_state_that_a_constraint_places_otherwise_is_refuted():
    from jax.sharding import PartitionSpec

    rows = (Layer("kernel", "parameter", {"old": "kernel", "new": "kernel"}),)
    given = replace(case(stepping(None), None), layers=rows)
    with within_mesh(make_mesh({"model": 1})):
        results = [
            found(replace(given, models={"old": stepping(None), "new": stepping(spec)}), trains=True)
            for spec in (None, PartitionSpec(None, "model"), PartitionSpec("model", None))
        ]
    assert [one.grade for one in results] == ["exact", "exact", "refuted"]
    (finding,) = [one for one in results[-1].findings if one.grade == "refuted"]
    assert finding.place == "leaf opt_state/trace/kernel"
    assert "which the optimizer of new keeps" in finding.note


def test_one_side_without_names_does_not_apply():
    plain = Names(up=None, down=None)
    state = compared(case(linen(), without_names(nnx_model(plain)), meshes=()))
    assert not [one for one in state.checks if one.check == "sharding"]
    assert any("of linen have names of axes, none of nnx" in note for note in describe_scope(state).notes)


def without_names(build):
    """A builder whose variables have lost their names."""

    def bare(rngs):
        from flax import nnx

        model = build(rngs)
        for _, node in nnx.iter_graph(model):
            if isinstance(node, nnx.Variable):
                node.set_metadata(out_sharding=None)
        return model

    return bare


def test_names_that_nothing_explains_are_not_compared():
    """Two vocabularies may mean the same; the scope says how to tell."""
    state = compared(case(linen(), nnx_model(Names(up=("d", "tp"), down=("tp", "d"), stack="l")), rules=(), meshes=()))
    assert not [one for one in state.checks if one.check == "sharding"]
    assert any("nothing says which axes of a mesh d, l, layers, tp are" in note for note in describe_scope(state).notes)


def test_too_few_devices_are_said_with_the_fix():
    notes = describe_scope(compared(case(linen(), nnx_model()))).notes
    assert any(one.startswith("the mesh model 2 is not exercised") for one in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_axes": {"z": ("model",)}}, "batch_axes names 'z'; the batch has x"),
        ({"batch_axes": {"x": ("model", None, None)}}, r"has \(model, None, None\) for 'x', which has 2 axes"),
        ({"rules": {"mlp": "modle"}}, "rules put 'mlp' on 'modle', which is no axis of the meshes; they have model"),
    ],
)
def test_names_that_are_not_there_are_errors(options, message):
    with pytest.raises(CaseError, match=message):
        open_case(case(linen(), nnx_model(), **options))
