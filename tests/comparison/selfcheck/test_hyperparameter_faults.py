"""Wrong hyperparameters planted in builders: noticed on the layer that has them, or it is said why not."""

import io
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from equiv import backends
from equiv.backends import hyperparameters as own
from equiv.backends import registry
from equiv.backends.build import port_spec
from equiv.backends.hyperparameters import Hyperparameter
from equiv.comparison.selfcheck.hyperparameter_faults import group_faults
from equiv.comparison.selfcheck.selfcheck import run_selfcheck
from equiv.comparison.selfcheck.wrong_values import HYPERPARAMETER_RULES, wrong_values
from equiv.core import selfcheck_results as kills
from equiv.core.case import Case
from equiv.core.layers import linear
from equiv.report.terminal.selfcheck import print_selfcheck

LIBRARIES = ("haiku", "linen", "nnx")


def in_builders(case: Case, *kinds: str) -> tuple[kills.MutantResult, ...]:
    """What becomes of the faults in a case's builders; of all kinds where none is named."""
    rules = [rule for rule in HYPERPARAMETER_RULES if not kinds or rule.kind in kinds]
    result = run_selfcheck(replace(helpers.loaded("mlp"), case=case), faults=(), rules=rules)
    assert result.problem == ""
    return result.mutants


@cache
def planted(candidate: str, *kinds: str) -> tuple[kills.MutantResult, ...]:
    """The faults in one builder of the guide's MLP, of some kinds or of all; Haiku is a candidate like Linen."""
    case = helpers.loaded("mlp").case
    names = ("linen" if candidate == "haiku" else "haiku", candidate)
    return in_builders(replace(case, models={name: case.models[name] for name in names}), *kinds)


def planted_at(candidate: str, site: str) -> kills.MutantResult:
    """The one fault that is planted there."""
    kinds = ("builder: other eps",) if " eps" in site else ()
    (found,) = [kill for kill in planted(candidate, *kinds) if site in f"{kill.site} "]
    return found


@pytest.mark.quick(6)
@pytest.mark.parametrize(
    ("candidate", "site", "check", "place"),
    [
        ("haiku", "bn: eps 1e-06 for 1e-05 ", "outputs", "eval __call__: output"),
        ("linen", "bn: epsilon 1e-06 for 1e-05 ", "outputs", "eval __call__: output"),
        ("nnx", "bn: epsilon 1e-06 for 1e-05 ", "outputs", "eval __call__: output"),
        ("nnx", "bn: momentum 0.9 for 0.99 ", "state", "train __call__: state bn/mean"),
        ("nnx", "bn: dtype bfloat16 for None ", "outputs", "eval __call__: output"),
        ("nnx", "dropout: rate 0.05 for 0.1 ", "outputs", "train __call__: output"),
        ("haiku", "mean_ema: decay 0.9 for 0.99", "state", "train __call__: state bn/mean.hidden"),
        ("haiku", "mean_ema: zero_debias False for True", "train", "train: bn/mean"),
        ("haiku", "bn: create_offset False for True ", "structure", "leaf bn/bias"),
        ("linen", "bn: epsilon 0.001 for 1e-05 ", "outputs", "eval __call__: output"),
        ("linen", "bn: momentum 0.9 for 0.99 ", "state", "train __call__: state bn/mean"),
        ("linen", "bn: momentum 0.01 for 0.99 ", "state", "train __call__: state bn/mean"),
        ("linen", "bn: use_scale False for True ", "structure", "leaf bn/scale"),
        ("linen", "linear1: dout 17 for 16 ", "structure", "leaf linear1/w"),
        ("linen", "dropout: rate 0.9 for 0.1 ", "outputs", "train __call__: output"),
    ],
)
def test_a_wrong_hyperparameter_is_noticed_on_its_layer(candidate, site, check, place) -> None:
    """By the check that looks there, in all three libraries."""
    kill = planted_at(candidate, site)
    assert (kill.outcome, kill.check, kill.place, kill.program) == ("killed", check, place, "builder")


@pytest.mark.slow
def test_a_model_that_cannot_be_built_is_noticed_with_message() -> None:
    """A mode that is given twice in Linen."""
    twice = planted_at("linen", "bn: use_running_average True for None")
    assert (twice.outcome, twice.check, twice.place) == ("killed", "structure", "model")
    assert twice.reason.startswith("linen: building the model raised ValueError: Parameter")


def test_a_model_that_cannot_be_called_is_noticed_with_message() -> None:
    """An axis that does not fit in NNX."""
    assert planted_at("nnx", "bn: axis -2 for -1").reason.startswith("nnx: tracing raised TypeError: cannot reshape")


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("candidate", "site"),
    [("nnx", "bn: use_scale False for True"), ("nnx", "linear1: dout 17 for 16"), ("linen", "bn: force_float32")],
)
def test_an_attribute_without_effect_is_proved_so_and_not_counted(candidate, site) -> None:
    """It is read when the model is built, or only in narrow dtypes."""
    kill = planted_at(candidate, site)
    assert (kill.outcome, kill.check, kill.place) == ("equivalent", "", "")
    assert kill.reason == "traced to the same programs: the value is not used"


def test_what_is_the_same_in_real_numbers_is_equivalent() -> None:
    """A variance in one pass or in two: proved."""
    kill = planted_at("nnx", "bn: use_fast_variance False for True")
    assert kill.outcome == "equivalent"


def test_an_error_while_changing_a_layer_is_no_noticed_fault() -> None:
    """The value that the layer has already is put there in the same way, and must do no harm."""
    from flax import nnx

    class Fixed(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(6, 6, rngs=rngs)
            self.factor = 0.5

        def __setattr__(self, name, value):
            if name == "factor" and "factor" in vars(self):
                raise AttributeError("factor is fixed")
            super().__setattr__(name, value)

        def __call__(self, x):
            return self.linear(x) * self.factor

    rows = (linear("layer", haiku="linear", nnx="linear"),)
    case = replace(two_layers("nnx"), layers=rows)
    import haiku as hk

    models = {"haiku": lambda: hk.transform(lambda x: hk.Linear(6)(x) * 0.5), "nnx": lambda rngs: Fixed(rngs)}
    (kill,) = in_builders(replace(case, models=models), "builder: other number")
    assert kill.outcome == "unidentifiable"
    assert kill.reason.startswith("the layer cannot be changed: with the value that it has, nnx: building the model ")
    assert "factor is fixed" in kill.reason


@pytest.mark.quick(1)
@pytest.mark.parametrize("library", LIBRARIES[::-1])
def test_none_survives(library) -> None:
    """In none of the three libraries."""
    assert {kill.outcome for kill in planted(library)} <= {"killed", "equivalent", "unidentifiable"}


def test_a_check_that_is_blind_leaves_survivors() -> None:
    """A budget in which everything fits, as a loose tolerance would be."""
    (kill,) = in_builders(replace(two_layers("linen"), budget_factor=1e20), "builder: other activation")
    assert (kill.outcome, kill.check) == ("survived", "")
    assert "within the budget of" in kill.reason


def two_layers(library: str) -> Case:
    """Two dense layers with an activation between them, held in a sequence: a candidate in one library."""
    import flax.linen as nn
    import haiku as hk
    from flax import nnx

    models = {
        "haiku": lambda: hk.transform(lambda x: hk.Sequential([hk.Linear(6), jax.nn.relu, hk.Linear(6)])(x)),
        "linen": lambda: nn.Sequential([nn.Dense(6), jax.nn.relu, nn.Dense(6)]),
        "nnx": lambda rngs: nnx.Sequential(nnx.Linear(6, 6, rngs=rngs), jax.nn.relu, nnx.Linear(6, 6, rngs=rngs)),
    }
    other = "haiku" if library != "haiku" else "linen"
    rows = [
        linear(f"layer{number}", haiku=f"linear{last}", linen=f"layers_{2 * number}", nnx=f"layers.{2 * number}")
        for number, last in enumerate(("", "_1"))
    ]
    chosen = {name: models[name] for name in (other, library)}
    return Case(guide="two layers", models=chosen, batch={"x": "float32[4,6]"}, layers=tuple(rows))


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_activation_in_a_sequence_is_exchanged(library) -> None:
    """An element of a list or tuple of functions counts by itself."""
    (kill,) = in_builders(two_layers(library), "builder: other activation")
    assert kill.site.endswith("gelu for relu")
    assert (kill.outcome, kill.place) == ("killed", "call __call__: output")


def test_one_fault_in_several_layers_is_planted_once_with_count() -> None:
    """One place for each class, attribute and value."""
    kinds = [kill for kill in in_builders(two_layers("linen"), "builder: flag") if "use_bias" in kill.site]
    assert [kill.site for kill in kinds] == ["Dense layers_0: use_bias False for True, 1 of 2 layers"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_changed_port_leaves_the_builder_and_models_unchanged(library) -> None:
    """What is changed for one trace is as before in the next."""
    case = helpers.loaded("mlp").case
    request, _ = port_spec(case)
    module, builder = registry.load_hyperparameters(library), case.models[library]
    assert module is not None
    before = module.hyperparameters(builder, request)
    which = next(one for one in before if one.name in ("eps", "epsilon"))
    port = module.altered(builder, request, which, 0.25)
    own.trace_all_methods(port, request, nullcontext())
    after = module.hyperparameters(builder, request)
    told = [
        [(one.place, one.layer, one.name, repr(one.value).partition(" at ")[0]) for one in r] for r in (before, after)
    ]
    assert told[0] == told[1]


def test_a_function_jitted_outside_its_builder_is_traced_again(monkeypatch) -> None:
    """Else the fault never gets into the program; without `fresh_trace_cache` it does not."""
    import flax.linen as nn

    @jax.jit
    def outside(x):
        return nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x)

    class Model(nn.Module):
        epsilon: float = 1e-5

        @nn.compact
        def __call__(self, x):
            return outside(nn.Dense(6)(x))

    rows = (linear("layer", haiku="linear", linen="Dense_0"),)
    case = replace(two_layers("linen"), layers=rows)
    case = replace(case, models={"haiku": case.models["haiku"], "linen": Model})
    request, _ = port_spec(case)
    module = registry.load_hyperparameters("linen")
    assert module is not None

    def kinds():
        found = module.hyperparameters(Model, request)
        return {(one.layer, one.name) for one in found}

    module.hyperparameters(Model, request)
    assert ("LayerNorm", "epsilon") in kinds()
    monkeypatch.setattr(own, "fresh_trace_cache", nullcontext)
    kinds()
    assert ("LayerNorm", "epsilon") not in kinds()


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("epsilon", 1e-5, [1e-6, 1e-3]),
        ("eps", 1e-6, [1e-5, 1e-3]),
        ("epsilon", 1e-3, [1e-6, 1e-4]),
        ("momentum", 0.99, [0.9, 1 - 0.99]),
        ("decay_rate", 0.9, [0.99, 1 - 0.9]),
        ("momentum", None, []),
        ("rate", 0.5, [0.25]),
        ("dropout_rate", 0.1, [0.05, 0.9]),
        ("rate", 0.0, [0.1]),
        ("padding", "SAME", ["VALID"]),
        ("padding", ((0, 0), (1, 1)), [((1, 1), (0, 0))]),
        ("strides", (2, 1), [(1, 2)]),
        ("stride", None, [2]),
        ("kernel_dilation", 1, [2]),
        ("num_groups", 6, [3]),
        ("groups", 1, [2]),
        ("axis", -1, [-2]),
        ("axis", None, []),
        ("reduction_axes", (0, -2), [(1, -3)]),
        ("dtype", None, [jnp.bfloat16]),
        ("dtype", jnp.float32, [jnp.bfloat16]),
        ("dtype", jnp.bfloat16, [jnp.float32]),
        ("param_dtype", jnp.float32, []),
        ("precision", None, [jax.lax.Precision.HIGHEST]),
        ("deterministic", None, [True]),
        ("deterministic", False, [True]),
        ("activation", jax.nn.relu, [jax.nn.gelu]),
        ("activation", jnp.tanh, [jax.nn.sigmoid]),
        ("kernel_init", jax.nn.initializers.zeros, []),
        ("alpha", 0.3, [0.6]),
        ("features", (3, 4), [(4, 5)]),
        ("name_of_an_axis", "batch", []),
    ],
)
def test_wrong_values_are_those_that_somebody_would_write(name, value, wrong) -> None:
    """And none where an attribute is of no kind."""
    assert [found for _, found in wrong_values(name, value)] == wrong


@given(
    st.sampled_from(["eps", "momentum", "rate", "strides", "axis", "padding", "num_groups", "use_bias", "features"]),
    st.one_of(
        st.floats(1e-7, 0.999), st.booleans(), st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 9))
    ),
)
def test_a_wrong_value_is_another_value_of_the_same_type(name, value) -> None:
    """Or it would be no fault."""
    for _, wrong in wrong_values(name, value):
        assert wrong != value
        assert type(wrong) is type(value)


def test_plants_are_ordered_by_kind_once_per_class_and_value() -> None:
    """Two layers of one class with the same eps are one plant, another class is another."""
    found = [
        Hyperparameter("a", "BatchNorm", "momentum", 0.99),
        *(Hyperparameter(place, "LayerNorm", "epsilon", 1e-5) for place in ("b", "c")),
        Hyperparameter("d", "BatchNorm", "epsilon", 1e-5),
    ]
    sites = [plant.site(0) for plant in group_faults(found, HYPERPARAMETER_RULES)]
    assert sites == [
        "LayerNorm b: epsilon 1e-06 for 1e-05, 1 of 2 layers",
        "LayerNorm b: epsilon 0.001 for 1e-05, 1 of 2 layers",
        "BatchNorm d: epsilon 1e-06 for 1e-05",
        "BatchNorm d: epsilon 0.001 for 1e-05",
        "BatchNorm a: momentum 0.9 for 0.99",
        "BatchNorm a: momentum 0.01 for 0.99",
    ]


def test_kinds_of_both_catalogues_have_names_of_their_own() -> None:
    """A row of the matrix is one kind."""
    from equiv.programs.mutation.mutate import FAULTS

    names = [kind.kind for kind in (*FAULTS, *HYPERPARAMETER_RULES)]
    assert len(set(names)) == len(names)
    assert all(rule.stands_for for rule in HYPERPARAMETER_RULES)


def test_a_backend_that_has_no_such_file_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out, not an error; and files beside the folders are no backends."""
    assert registry.backend_names() == LIBRARIES
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").touch()
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    assert registry.backend_names() == tuple(sorted((*LIBRARIES, "bare")))
    assert registry.load_hyperparameters("bare") is None


def test_the_command_lists_faults_in_programs_and_in_builders() -> None:
    """In two lists below the headline; survivors by layer and value, unidentifiable ones by kind and reason."""
    kill = partial(kills.MutantResult, "nnx", "builder: other eps", "builder", "LayerNorm a: eps 1e-06 for 1e-05")
    moved = "moves eval: output by 1.8e-15, changing with the rounding: the same in real numbers on every probe"
    found = (
        kill("killed"),
        kill("survived", reason="moves eval: output by 1e-9, within the budget of 1e-8"),
        kills.MutantResult(
            "nnx", "builder: flag", "builder", "BatchNorm b: use_fast_variance", "unidentifiable", reason=moved
        ),
        kills.MutantResult("nnx", "eps x 10", "step", "add", "killed"),
    )
    console = Console(file=io.StringIO(), width=120, color_system=None)
    print_selfcheck(
        kills.summarise_selfcheck([kills.SelfcheckResult("some", False, found, ("eps x 10", "builder: flag"))]), console
    )
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == [
        "✗ 2 of 4 mutants killed, 0 equivalent, 1 unidentifiable, 1 survived",
        "1 in programs: ✓ 1; 3 in builders: ✓ 1 ? 1 ✗ 1",
    ]
    assert lines[-2:] == [
        "? 1 builder: flag: changing with the rounding: the same in real numbers on every probe",
        "✗ survived some, nnx: builder: other eps, LayerNorm a: eps 1e-06 for 1e-05: moves eval: output by 1e-9, "
        "within the budget of 1e-8",
    ]
