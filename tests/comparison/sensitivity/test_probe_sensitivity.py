"""Probe sensitivity: a leaf without effect, or two that only enter as a sum, are unidentifiable."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import helpers
import numpy as np
import pytest

from equiv.comparison.numeric import held_outputs
from equiv.comparison.sensitivity import probe_sensitivity, trial_runs
from equiv.comparison.sensitivity.probe_sensitivity import Sensitivity, measure_sensitivity
from equiv.comparison.sensitivity.trial_runs import BaseRun, LeafChange, compare_change
from equiv.comparison.stages import open_case, run_reference, start_compiling, trace_ports
from equiv.comparison.state import CaseState, advance
from equiv.core.case import Case
from equiv.core.output_name import OutputName
from equiv.core.results import ProbeTrial
from equiv.programs import compiled
from equiv.programs.compiled import run_executable
from equiv.programs.probes import perturb_by_ulp
from equiv.programs.streamed import stream_each_output

SOURCE = """
from equiv.case import Case
from equiv.layers import parameter


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            NAMES = (self.param(name, nn.initializers.ones, [3]) for name in "NAMES".replace(", ", ""))
            w = self.param("w", nn.initializers.ones, [4, 3])
            return FORMULA

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen},
    batch={"x": "float32[5,4]"},
    layers=tuple(parameter(name, linen=name) for name in ("NAMES".replace(", ", "") + "w")),
    steps=2,
)
"""


@cache
def observed(formula: str, factor: float = 1.0, names: str = "ab") -> CaseState:
    """A model of some leaves of three elements and a kernel, run on its probes."""
    source = SOURCE.replace("FORMULA", formula).replace("NAMES", ", ".join(names))
    return run_observed(replace(helpers.case_from(source, "adequate"), budget_factor=factor))


def run_observed(case: Case) -> CaseState:
    state = replace(open_case(case), in_float64={"linen": frozenset()}, candidates=())
    return advance(state, (trace_ports, start_compiling, run_reference))


def measured(formula: str, factor: float = 1.0, names: str = "ab") -> Sensitivity:
    return measured_state(observed(formula, factor, names), factor)


def measured_state(state: CaseState, factor: float = 1.0) -> Sensitivity:
    assert state.compiled_reference is not None
    assert state.observed is not None
    return measure_sensitivity(state.compiled_reference, state.observed, factor)


def undetected(formula: str, names: str = "ab") -> list[tuple[str, ...]]:
    return [trial.subject for trial in measured(formula, names=names).trials if not trial.detected]


def unnoticed_pairs(trials: Sequence[ProbeTrial]) -> set[tuple[str, ...]]:
    missed = [trial for trial in trials if trial.kind == "swapped" and not trial.detected]
    pairs = [pair for trial in missed for pair in combinations(trial.subject, 2)]
    assert len(pairs) == sum(trial.pairs for trial in missed)
    return set(map(tuple, map(sorted, pairs)))


def test_every_leaf_is_moved_and_equal_shapes_are_swapped():
    trials = measured("(x @ w * a + b) ** 2").trials
    expected = [("moved", ("a",)), ("moved", ("b",)), ("moved", ("w",)), ("swapped", ("a", "b"))]
    assert [(trial.kind, trial.subject) for trial in trials] == expected
    assert all(trial.detected for trial in trials)


def test_a_wider_budget_of_the_case_hides_changes():
    """Budgets are those that candidates are compared with, the case's factor included."""
    assert not any(trial.detected for trial in measured("(x @ w * a + b) ** 2", factor=1e20).trials)


@pytest.mark.parametrize(
    "formula",
    ["(x @ w + 0.0 * a) * b", "(x @ w + jax.numpy.zeros_like(a)) * b", "(x @ w + a - a) * b"],
)
def test_a_leaf_that_does_nothing_is_reported(formula):
    assert ("a",) in undetected(formula)
    assert ("b",) not in undetected(formula)


@pytest.mark.parametrize("formula", ["x @ w + (a + b)", "(x @ w + a + b) ** 2", "x @ w * (a * b)"])
def test_a_swap_of_leaves_that_only_enter_together_is_reported(formula):
    """Each has the other's gradient and is moved like it: a port that took one for the other would pass."""
    assert undetected(formula) == [("a", "b")]


def test_a_bias_before_a_softmax_over_its_axis_is_reported():
    assert undetected("jax.nn.softmax(x @ w + a[:1]) * b") == [("a",)]


def test_a_change_without_a_slope_is_found_by_a_run():
    """Where a slope is zero, as below a threshold that the change crosses, the gradient says nothing."""
    assert undetected("x @ w * b + jax.numpy.round(4 * jax.lax.stop_gradient(a))") == []


def test_what_bfloat16_hides_is_seen_in_float64():
    """Between 512 and 1024 numbers of bfloat16 are 4 apart; all of it is proved, and has no float64 run else."""
    formula = "700 + (x @ w * a + b).astype('bfloat16') * jax.nn.softmax(a)"
    assert undetected(formula) == []
    assert undetected("700 + (x @ w * (a * b)).astype('bfloat16')") == [("a", "b")]


MANY = "abcdefghijklmno"
"""Fifteen leaves of one shape have 105 pairs, many more than there may be runs."""

PLANTED = (
    "(jax.numpy.tanh(x @ w * a + b) * c + jax.numpy.sin(d * x[:, :1]) * e + f * x[:, 1:2] ** 2) * (g * h)"
    " + (i + j + k + l) + 0.0 * m + jax.numpy.tanh(1e6 * n**2) + jax.numpy.tanh(1e6 * o**2) * x[:, 2:3]"
)
ALIKE = ("gh", "ijkl", "mno")
"""Leaves of which any two may be swapped: scales that commute, a sum, and what is zero or saturated on the probe."""


def test_swaps_of_many_leaves_are_decided_as_by_runs():
    """No more runs than leaves say what a run of each of the 105 swaps says."""
    found, state = measured(PLANTED, names=MANY), observed(PLANTED, 1.0, MANY)
    assert found.runs <= len(MANY) + 1
    assert sum(trial.pairs for trial in found.trials if trial.kind == "swapped") == 105
    missed = {pair for pair in combinations(MANY, 2) if not is_noticed(state, LeafChange("swapped", pair))}
    assert unnoticed_pairs(found.trials) == missed
    assert missed == {pair for alike in ALIKE for pair in combinations(alike, 2)}
    assert {one.subject[0] for one in found.trials if one.kind == "moved" and not one.detected} == set("mno")
    assert {leaf for leaf in (*MANY, "w") if not is_noticed(state, LeafChange("moved", (leaf,)))} == set("mno")


def test_swaps_beyond_the_most_runs_are_said(monkeypatch):
    """Of 105 pairs each is noticed, not noticed, or said not to be tried; none is left out."""
    monkeypatch.setattr("equiv.comparison.sensitivity.probe_sensitivity.MOST_SWAPS", 2)
    swapped = [trial for trial in measured(PLANTED, names=MANY).trials if trial.kind == "swapped"]
    untried = [trial for trial in swapped if trial.note.startswith("not tried: no more runs are made than")]
    assert untried
    assert not any(trial.detected for trial in untried)
    assert sum(trial.pairs for trial in swapped) == 105


def test_leaves_that_one_joint_run_clears_are_not_swapped():
    """As the key biases of an attention: that no change of all of them shows says the same of each swap."""
    found = measured("x @ w * a + b + 0.0 * (c + d + e + f)", names="abcdef")
    assert unnoticed_pairs(found.trials) == set(combinations("cdef", 2))
    assert sum(trial.pairs for trial in found.trials if trial.kind == "swapped") == 15
    (missed,) = [trial for trial in found.trials if trial.kind == "swapped" and not trial.detected]
    assert (missed.pairs, missed.unrun) == (6, 6)
    assert found.runs <= 1 + 3  # all four together, and each two of a, b and c


def test_a_leaf_without_gradient_that_matters_is_noticed():
    """All without a gradient show together; those that do nothing are found by halves, and then known as one."""
    function = "x @ w * a + (8 * b).astype(int) + g * g + h * h * h + 2 * i + 0.0 * (c + d + e + f)"
    found = measured(function, names="abcdefghi")
    moved = {trial.subject[0]: trial for trial in found.trials if trial.kind == "moved"}
    assert {leaf for leaf, trial in moved.items() if not trial.detected} == set("cdef")
    assert moved["b"].note == "seen in call __call__: output"
    assert [trial.unrun for trial in found.trials if set(trial.subject) == set("cdef")] == [6]


STATE = """
from equiv.case import Case
from equiv.layers import parameter, state


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.ones, [4, 3])
            p, q, r, s = (self.variable("sizes", name, jnp.zeros, [4]) for name in "pqrs")
            if not self.is_initializing():
                p.value, q.value = (jnp.maximum(one.value, jnp.abs(x).max(0)) for one in (p, q))
                r.value, s.value = (0.9 * one.value + 0.1 * (x**power).mean(0) for one, power in ((r, 1), (s, 2)))
            return (x + p.value + q.value) / (2 + r.value) @ w

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen},
    batch={"x": "float32[5,4]"},
    layers=(parameter("w", linen="w"), *(state(name, linen=f"sizes/{name}") for name in "pqrs")),
    steps=2,
)
"""


def test_state_that_is_kept_alike_and_summed_is_reported():
    """Of six pairs, five are told apart by what training makes of fresh state, which is a probe of the comparison."""
    state = run_observed(helpers.case_from(STATE, "kept"))
    assert state.compiled_reference is not None
    assert state.observed is not None
    found = measure_sensitivity(state.compiled_reference, state.observed, 1.0)
    assert found.runs <= 5
    assert sum(trial.pairs for trial in found.trials if trial.kind == "swapped") == 6
    missed = {pair for pair in combinations("pqrs", 2) if not is_noticed(state, LeafChange("swapped", pair))}
    assert unnoticed_pairs(found.trials) == missed == {("p", "q")}


class Read(dict[OutputName, np.ndarray]):
    """Outputs that know which of them were looked at."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kinds: set[str] = set()

    def __getitem__(self, name: OutputName) -> np.ndarray:
        self.kinds.add(name.program.kind)
        return super().__getitem__(name)


@pytest.mark.parametrize(
    ("formula", "kinds"), [("x @ w + a * b", {"call"}), ("x @ w + b", {"call", "gradient", "training"})]
)
def test_training_is_looked_at_only_where_calls_show_nothing(formula, kinds):
    """Most of what a large model gives are the leaves of every train step; `a` is in the first formula only."""
    reference, compiled = observed(formula).observed, observed(formula).compiled_reference
    assert reference is not None
    assert compiled is not None
    probe, change = reference.probes[0], LeafChange("moved", ("a",))
    outputs = Read(reference.observed.samples[probe.name].native)
    base = BaseRun(compiled.native, probe, outputs, reference.noise, 1.0)

    compare_change(base, change, [run_executable(compiled.native, change.apply(probe))])

    assert outputs.kinds == kinds


@pytest.mark.parametrize("formula", ["x @ w + a * b", "x @ w + b", "x @ w + (a + b)"])
def test_large_training_gives_the_same_trials(formula, monkeypatch):
    """Where train steps are run one by one, and outputs compared in pieces; steps only where calls show nothing."""
    whole = measured(formula)
    for module, name, value in (
        (compiled, "LARGE_TRAINING", 0), (held_outputs, "LARGE_OUTPUT", 8), (trial_runs, "MOST_KEPT", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    parts: list[int] = []
    stream = trial_runs.stream_outputs

    def counted(*given: Any) -> Iterator[Any]:
        parts.append(0)
        for part in stream(*given):
            parts[-1] += 1
            yield part

    monkeypatch.setattr(trial_runs, "stream_outputs", counted)
    folded = measured_state(observed.__wrapped__(formula))

    assert folded.runs == whole.runs == len(parts)
    for one, other in zip(folded.trials, whole.trials, strict=True):
        assert replace(one, ratio=None) == replace(other, ratio=None)
        assert one.ratio == (None if other.ratio is None else pytest.approx(other.ratio, rel=1e-6))
    missed = sum(not trial.detected for trial in folded.trials)
    assert (max(parts, default=0) > 1) == (missed > 0)
    assert sum(one > 1 for one in parts) <= missed


def test_a_large_port_runs_whole_where_calls_show_nothing(monkeypatch):
    """A change of `a` shows in the call, of `c` only in the gradient of `b`, of `b` and `d` nowhere."""
    state = observed("x @ w * a + (b - jax.lax.stop_gradient(b)) * c + 0.0 * d", names="abcd")
    reference, port = state.observed, state.compiled_reference
    assert reference is not None
    assert port is not None
    monkeypatch.setattr(trial_runs, "COMPILED_EQUATIONS", 0)
    run: list[bool] = []
    stream = trial_runs.stream_outputs

    def recorded(executable: Any, probe: Any) -> Iterator[Any]:
        run.append(executable.programs.step is not None)
        return stream(executable, probe)

    monkeypatch.setattr(trial_runs, "stream_outputs", recorded)
    probe = reference.probes[0]
    base = BaseRun(port.native, probe, reference.observed.samples[probe.name].native, reference.noise, 1.0)
    changes = [LeafChange("moved", (leaf,)) for leaf in "abcd"]
    found = trial_runs.TrialRuns((base,), left=8).try_changes(changes)
    assert [found[change].noticed for change in changes] == [True, False, True, False]
    assert found[changes[0]].output.startswith("call __call__: output")
    assert found[changes[2]].output == "gradient __call__: gradient b"
    assert run == [False, False, True, False, True, False, True]
    # Without runs for both, each is run whole at once.
    run.clear()
    scarce = trial_runs.TrialRuns((base,), left=7).try_changes(changes)
    assert [scarce[change].noticed for change in changes] == [True, False, True, False]
    assert run == [True] * 4


def test_a_large_port_is_read_in_float64(monkeypatch):
    """Where all is proved: in float32 the gradients of deep layers round to zero, and each would be run for itself."""
    formula = "3e8 + (x @ w * a + b)"
    assert ("b",) in undetected(formula)
    monkeypatch.setattr(probe_sensitivity, "COMPILED_EQUATIONS", 0)
    assert undetected(formula) == []
    assert undetected("3e8 + x @ w * (a * b)") == [("a", "b")]


def test_casts_hide_nothing_of_a_large_port(monkeypatch):
    """Computed in bfloat16, returned in float32: the float64 run has no casts, and rounds no more than its budgets say.

    With its casts, what rounding moves by hundreds of budgets would be noticed.
    """
    state = observed("(jnp.bfloat16(x) @ jnp.bfloat16(w) * jnp.bfloat16(a) + jnp.bfloat16(b)).astype('float32')")
    monkeypatch.setattr(probe_sensitivity, "COMPILED_EQUATIONS", 0)
    assert state.compiled_reference is not None
    port = replace(state.compiled_reference, float64=None, why_no_float64="")
    finer = probe_sensitivity.run_finer(port, state.observed, 1.0)
    assert finer is not None
    moved = dict(stream_each_output(finer.executable, perturb_by_ulp(finer.probe, 1, "float64")))
    assert all(np.max(np.abs(moved[one] - array)) > 0 for one, array in finer.outputs.items() if not one.leaf)
    for one, array in finer.outputs.items():
        assert np.all(np.abs(moved[one] - array) <= finer.budgets(one)), one


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["dropout", "counter", "batch_norm", "rnn_scan"])
def test_draws_and_state_of_a_large_port_are_those(name, monkeypatch):
    port, reference = helpers.compiled_reference(name), helpers.reference(name)
    monkeypatch.setattr(probe_sensitivity, "COMPILED_EQUATIONS", 0)
    finer = probe_sensitivity.run_finer(replace(port, float64=None, why_no_float64=""), reference, 1.0)
    assert finer is not None
    native = reference.observed.samples[finer.probe.name].native
    forward = {name for name in native if name.program.is_forward and not name.after_training}
    gradients = set(finer.outputs) - forward
    assert forward <= set(finer.outputs)
    assert {name.leaf for name in gradients if name.kind == "gradient"} == {
        name.leaf for name in native if name.kind == "gradient"
    }
    assert len({name.program for name in gradients}) == 1
    assert all(np.allclose(value, native[one], rtol=1e-3, atol=1e-4) for one, value in finer.outputs.items())


def is_noticed(state: CaseState, change: LeafChange) -> bool:
    """Whether a change shows in a run of its own."""
    compiled, reference = state.compiled_reference, state.observed
    assert compiled is not None
    assert reference is not None
    probe = reference.probes[0]
    base = BaseRun(compiled.native, probe, reference.observed.samples[probe.name].native, reference.noise, 1.0)
    return compare_change(base, change, [run_executable(compiled.native, change.apply(probe))]).noticed


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", ["counter", "custom_linear", "stateful_linear", "rnn_scan", "loop_over_layers"])
def test_every_leaf_and_swap_of_a_real_case_is_noticed(name):
    reference = helpers.reference(name)
    found = measure_sensitivity(helpers.compiled_reference(name), reference, 1.0)
    assert found.trials
    assert [trial for trial in found.trials if not trial.detected] == []
    # What no run was made for does not say that it was seen.
    assert all(trial.note.startswith("seen in ") == (trial.unrun < trial.pairs) for trial in found.trials)
    assert all(trial.note for trial in found.trials)
    assert found.runs <= len(reference.probes[0].variables)
