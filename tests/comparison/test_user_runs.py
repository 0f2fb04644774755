"""Each port as its user runs it: the compiler is named where it is wrong, and no port is blamed for it."""

from datetime import UTC, datetime
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from helpers import loaded

from equiv.bench import hlo_diff
from equiv.bench.case_costs import make_bench
from equiv.case import Case
from equiv.comparison import as_users
from equiv.comparison.checks.compiled import _judge
from equiv.comparison.numeric import user_outputs
from equiv.comparison.observation import Blame
from equiv.comparison.pipeline import make_run_result, run_case
from equiv.comparison.stages import open_case, trace_ports
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.headline import verdict_words
from equiv.core.output_name import STEP, TRAINING
from equiv.core.results import Finding
from equiv.layers import linear, parameter
from equiv.programs.known_miscompilations import KNOWN
from equiv.programs.user_calls import compile_user_call, lower_user_calls
from equiv.report.junit import render_junit
from equiv.report.markdown import render_markdown

ROWS = 33_000


@pytest.fixture(scope="module", autouse=True)
def as_users_run():
    """The other tests leave this check out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(as_users.ASKED, "1")
        yield


only_where_rows_are_wrong = pytest.mark.skipif(
    KNOWN[0].is_right(), reason="this jax compiles the product with every row of a batch right"
)


def at_once(reduce, w, x):
    """Reduce the products of a matrix with every row, all at once."""
    return reduce(x @ w.T)


def by_row(reduce, w, x):
    """The same, row by row: what jax 0.10.2 compiles wrong on CPU."""
    return jax.vmap(lambda row: reduce(w @ row))(x)


def sum_squares(products):
    return jnp.sum(products**2, axis=-1)


def find_largest(products):
    return jnp.max(products, axis=-1)


def take_norms(products):
    return jnp.linalg.norm(products, axis=-1)


def linen_model(reduced):
    """A model with a parameter `w` and four methods, of which three reduce products with each row."""

    class Model(nn.Module):
        def setup(self):
            self.w = self.param("w", nn.initializers.normal(), (3, 3))

        def __call__(self, x):
            return x @ self.w[0]

        def squares(self, x):
            return reduced(sum_squares, self.w, x)

        def largest(self, x):
            return reduced(find_largest, self.w, x)

        def norms(self, x):
            return reduced(take_norms, self.w, x)

    return lambda: Model()


def nnx_model(reduced):
    """The same in NNX."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.w = nnx.Param(jax.random.normal(rngs.params(), (3, 3)))

        def __call__(self, x):
            return x @ self.w[...][0]

        def squares(self, x):
            return reduced(sum_squares, self.w[...], x)

        def largest(self, x):
            return reduced(find_largest, self.w[...], x)

        def norms(self, x):
            return reduced(take_norms, self.w[...], x)

    return lambda rngs: Model(rngs)


METHODS = ("squares", "largest", "norms")


def judge(batch=ROWS, loss=None, methods=("__call__", *METHODS), **models):
    """Compare models that have one parameter."""
    names = dict.fromkeys(models, "w")
    case = Case(
        guide="none",
        models=models,
        batch={"x": f"float32[{batch},3]"},
        methods=dict.fromkeys(methods, ("x",)),
        layers=(parameter("w", **names),),
        loss=loss,
        steps=1,
    )
    return run_case(LoadedCase("rows", "", case))


def checks_of(result, candidate):
    """Check name to check."""
    return {check.check: check for check in result.checks if check.candidate == candidate}


def wrong_programs(result, candidate):
    """Port and program of every miscompilation that is told of a candidate."""
    found = checks_of(result, candidate)["compiled"].findings
    return {(one.miscompiled.port, one.miscompiled.program) for one in found if one.miscompiled}


@pytest.fixture(scope="module")
def large():
    """Four ports of one model, of which two multiply row by row."""
    return judge(
        plain=linen_model(at_once),
        rows=linen_model(by_row),
        nnx_rows=nnx_model(by_row),
        nnx_plain=nnx_model(at_once),
    )


@pytest.mark.quick(1)
@only_where_rows_are_wrong
@pytest.mark.parametrize("candidate", ["rows", "nnx_rows"])
def test_every_method_that_the_compiler_gets_wrong_is_named(large, candidate):
    assert wrong_programs(large, candidate) == {(candidate, f"call {method}") for method in METHODS}
    assert large.verdicts[candidate] == "error"
    assert verdict_words(large, candidate) == "same, compiled wrong"


@only_where_rows_are_wrong
@pytest.mark.parametrize("candidate", ["rows", "nnx_rows"])
def test_the_guilty_pass_and_what_helps_are_told(large, candidate):
    found = [one for one in checks_of(large, candidate)["compiled"].findings if one.grade == "error"]
    assert {one.miscompiled.passes for one in found} == {("dot-library-rewriter",)}
    assert all(
        one.ratio > 1 and f"jax {jax.__version__} on cpu compiles {candidate} wrong" in one.note for one in found
    )
    assert all('compiler_options={"xla_disable_hlo_passes": "dot-library-rewriter"}' in one.note for one in found)


def test_a_right_port_of_that_size_stays_the_same(large):
    assert large.verdicts["nnx_plain"] == "same"
    assert checks_of(large, "nnx_plain")["compiled"].grade in ("exact", "rounding")


@pytest.mark.parametrize("candidate", ["rows", "nnx_rows"])
def test_the_ports_themselves_are_proved_the_same(large, candidate):
    grades = {name: check.grade for name, check in checks_of(large, candidate).items() if name != "compiled"}
    assert set(grades.values()) <= {"exact", "proved", "proved modulo"}


def test_the_check_can_be_left_out(monkeypatch):
    monkeypatch.setenv(as_users.ASKED, "0")
    assert "compiled" not in checks_of(judge_tiny(), "nnx")


@only_where_rows_are_wrong
def test_every_report_says_that_the_compiler_is_wrong(large):
    run = make_run_result([large], datetime.now(UTC), 1.0)
    wanted = f"The ports are the same, but jax {jax.__version__} on cpu compiles rows and nnx_rows wrong here"
    assert (run.verdict, run.headline.startswith(wanted)) == ("error", True)
    for text in (run.headline, render_markdown([run]), render_junit([run])):
        assert "dot-library-rewriter" in text


def test_a_small_batch_is_compiled_right():
    result = judge(64, plain=linen_model(at_once), rows=linen_model(by_row))
    assert result.verdicts == {"rows": "same"}


def weigh_by_rows(outputs, batch):
    """A loss whose gradient is weighted by a reduced product with every row."""
    weights = by_row(find_largest, jnp.arange(9.0).reshape(3, 3) - 4, batch["x"])
    return jnp.sum(jax.lax.stop_gradient(weights) * outputs) / ROWS


@pytest.mark.slow
@only_where_rows_are_wrong
def test_a_train_step_alone_is_wrong_in_both_ports():
    """Both compute the same wrong step, which the other checks cannot see."""
    models = {"one": linen_model(at_once), "other": nnx_model(at_once)}
    result = judge(loss=weigh_by_rows, methods=("__call__",), **models)
    assert wrong_programs(result, "other") == {("one", "train step"), ("other", "train step")}
    assert verdict_words(result, "other") == "same, compiled wrong"


def small_model():
    """A model that draws."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dropout(0.5, deterministic=not train)(nn.Dense(3, name="dense")(x))

    return Model()


def small_nnx_model(rngs):
    """The same in NNX."""

    class Model(nnx.Module):
        def __init__(self):
            self.dense, self.dropout = nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.dense(x))

    return Model()


DROPPING = Case(
    guide="none",
    models={"linen": small_model, "nnx": small_nnx_model},
    batch={"x": "float32[5,4]"},
    layers=(linear("dense", linen="dense", nnx="dense"),),
    steps=2,
)


def compile_wrong(port, guilty):
    """A compiler that makes everything in one port a thousandth larger, unless it leaves out the guilty pass."""

    def compile_it(call, options=None):
        function = compile_user_call(call, options)
        if guilty in str((options or {}).get("xla_disable_hlo_passes", "")) or call.lowered.as_text() not in port:
            return function
        return lambda *arrays: [
            one * 1.001 if jnp.issubdtype(one.dtype, jnp.floating) else one for one in function(*arrays)
        ]

    return compile_it


def test_own_keys_and_draws_are_as_the_user_has_them():
    """The masks are those of each library's own keys, in a call and in every step."""
    result = run_case(LoadedCase("dropping", "", DROPPING))
    assert result.verdicts == {"nnx": "same"}
    assert len(checks_of(result, "nnx")["compiled"].findings) == 4


TINY = {"plain": linen_model(at_once), "nnx": nnx_model(at_once)}
"""Two ports in which there is nothing to be compiled wrong."""


def judge_tiny():
    return judge(4, methods=("squares",), **TINY)


@pytest.mark.quick(1)
@pytest.mark.parametrize("guilty", ["algsimp", "while-loop-simplifier"])
def test_a_planted_fault_of_the_compiler_is_found_alone(monkeypatch, guilty):
    texts, lower = [], as_users.lower_user_calls

    def lower_and_remember(traced, steps, **options):
        calls = lower(traced, steps, **options)
        texts.extend(call.lowered.as_text() for call in calls if traced.port.name == "nnx" and call.name != STEP)
        return calls

    monkeypatch.setattr(as_users, "lower_user_calls", lower_and_remember)
    monkeypatch.setattr(as_users, "compile_user_call", compile_wrong(texts, guilty))
    checks = checks_of(judge_tiny(), "nnx")
    assert {name for name, check in checks.items() if check.grade in ("refuted", "error")} == {"compiled"}
    assert [one.miscompiled.passes for one in checks["compiled"].findings if one.miscompiled] == [(guilty,)]


def test_a_fault_in_what_equiv_compiles_blames_no_port(monkeypatch):
    run = user_outputs.stream_with_draws

    def run_wrong(*arguments):
        for outputs, observed in run(*arguments):
            yield {name: value * np.asarray(1.001, value.dtype) for name, value in outputs.items()}, observed

    monkeypatch.setattr(user_outputs, "stream_with_draws", run_wrong)
    result = judge_tiny()
    notes = [one.note for one in checks_of(result, "nnx")["compiled"].findings]
    assert all("is right as users run it" in note for note in notes)
    assert verdict_words(result, "nnx") == "error"


def test_a_port_that_cannot_be_compiled_so_is_an_error(monkeypatch):
    def fail(call, options=None):
        raise ValueError("planted")

    monkeypatch.setattr(as_users, "compile_user_call", fail)
    notes = [one.note for one in checks_of(judge_tiny(), "nnx")["compiled"].findings]
    told = [f"{port}: compiling as users do raised ValueError: planted." for port in TINY]
    assert [note.partition(" Fix")[0] for note in notes] == told


@pytest.mark.parametrize("asked", [True, False])
def test_large_ports_are_compiled_so_where_asked(monkeypatch, asked):
    monkeypatch.setattr(as_users, "MOST_EQUATIONS", 3)
    if not asked:
        monkeypatch.delenv(as_users.ASKED)
    result = judge_tiny()
    assert ("compiled" in checks_of(result, "nnx")) == asked
    notes = [note for note in result.scope.notes if "not compiled as users do: " in note]
    assert [note.endswith("EQUIV_COMPILED=1 asks for it") for note in notes] == [True] * (not asked)


def test_what_is_run_is_what_bench_times():
    """The same compiled program in every library, but for the order of its arguments."""
    state = trace_ports(open_case(loaded("stateful_linear").case))
    bench = make_bench(state.built_case, {})
    for port, traced in state.traced.items():
        for call in lower_user_calls(traced, 1):
            text = compile_user_call(call).as_text()
            for one in bench.written(port, "train step" if call.name == STEP else "forward"):
                positional, keywords = one.start().arguments
                timed = one.function.trace(*positional, **keywords).lower().compile().as_text()
                assert not hlo_diff.difference(timed, text), (port, call.name)


def test_a_value_that_rounding_decides_has_no_ratio():
    """Else a report of the results, which judges findings again, would refute it."""
    finding = Finding("train", "refuted", error=1.0, budget=1e-3, ratio=1e3, reference="1", candidate="2", output=None)
    told = _judge("nnx", TRAINING, finding, SimpleNamespace(blame={STEP: Blame("unstable")}))
    assert (told.grade, told.ratio, told.error) == ("rounding", None, None)
    assert told.note == "its value depends on how it is rounded, whatever compiles it: it means 1, and computes 2"


class Limited:
    """A host function with one text for every limit."""

    def __init__(self, limit):
        self.limit = limit

    def __repr__(self):
        return "Limited()"

    def __call__(self, y):
        return np.minimum(np.asarray(y), np.float32(self.limit))


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_a_host_function_is_that_of_its_own_port(limit):
    """It is no part of the text of a program: two ports would have one executable."""

    def port(own):
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                y = jax.lax.stop_gradient(nn.Dense(3, name="l")(x))
                return jax.pure_callback(Limited(own), jax.ShapeDtypeStruct(y.shape, y.dtype), y)

        return Model

    models = {"left": lambda: port(1e9)(), "right": lambda: port(limit)()}
    case = Case("none", models, {"x": "float32[5,4]"}, (linear("l", left="l", right="l"),), steps=1)
    checks = {check.check: check.grade for check in run_case(LoadedCase("host", "", case)).checks}
    assert checks["compiled"] in EQUAL_GRADES
    assert (checks["outputs"] == "refuted") == (limit < 1)
