"""Programs with every rounded result moved by one ulp: what moves, by how much, and what does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.programs.nudge_operations import evaluate_nudged, find_narrow_dtypes, keep_programs
from equiv.programs.program import Program, Programs

CALL = ProgramName("call", "__call__")
X = np.linspace(0.3, 1.9, 64, dtype="float32")
ULP = 2.0**-23


def program_of(function, *arrays, name=CALL):
    jaxpr = jax.make_jaxpr(lambda *given: [function(*given)])(*arrays)
    inputs = tuple(InputName("batch", str(index)) for index in range(len(arrays)))
    return Program(name, jaxpr, inputs, (OutputName(name, "output"),))


def moved(function, *arrays):
    """The value of a function, and that of its nudged program."""
    jaxpr = program_of(function, *arrays).jaxpr
    one = np.asarray(jaxpr_as_fun(jaxpr)(*arrays)[0])
    (other,) = evaluate_nudged(jaxpr, arrays)
    assert one.dtype == other.dtype
    return one, other


@pytest.mark.parametrize(
    "function",
    [lambda x: x * x, lambda x: x + 1, jnp.tanh, lambda x: x @ jnp.ones((64, 3)), lambda x: x[:2] / 3],
)
def test_each_result_moves_by_about_one_ulp(function):
    one, other = moved(function, X)
    change = np.abs(other - one) / np.abs(one)
    assert np.all((change > 0.4 * ULP) & (change < 2.1 * ULP))


def test_results_move_both_up_and_down():
    one, other = moved(lambda x: x * x, X)
    assert 16 < np.sum(other > one) < 48


@pytest.mark.parametrize("function", [lambda x: x[::-1], lambda x: -x, lambda x: jnp.where(x > 1, x, 0), jnp.floor])
def test_what_does_not_round_does_not_move(function):
    one, other = moved(function, X)
    assert np.array_equal(one, other)


def test_digits_that_cancel_later_are_lost():
    one, other = moved(lambda x: (x + 1e4) - 1e4, X)
    assert np.max(np.abs(other - one)) > 1e4 * ULP / 2


def test_other_inputs_move_the_same_sum_otherwise():
    """An ulp of a small input is lost in a large sum, of which the direction still changes."""
    jaxpr = program_of(lambda x: x + 1e4, X).jaxpr
    runs = [evaluate_nudged(jaxpr, [X * np.float32(1 + k * ULP)])[0] for k in range(4)]
    assert len({run.tobytes() for run in runs}) > 1


def test_loops_and_branches_move_inside():
    def looped(x):
        return jax.lax.scan(lambda carry, y: (carry * 1.5 + y, carry), x[:3] * 0, jnp.stack([x[:3]] * 5))[1]

    def repeated(x):
        return jax.lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[1] * 1.1), (0, x))[1]

    def branched(x):
        return jax.lax.cond(x[0] < 1, lambda y: y * 1.1, lambda y: y, x)

    for function in (looped, repeated, branched):
        one, other = moved(function, X)
        assert np.any(one != other)
        np.testing.assert_allclose(one, other, rtol=20 * ULP)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float_dtype_moves_by_its_own_ulp(dtype):
    with jax.enable_x64(dtype == "float64"):
        one, other = moved(lambda x: x * x, jnp.asarray(X, dtype))
    size = float(jnp.finfo(dtype).eps)
    change = np.abs(other.astype("float64") - one.astype("float64")) / one.astype("float64")
    assert 0.4 * size < np.max(change) < 2.1 * size


def test_a_narrower_dtype_than_inputs_and_outputs_is_noticed():
    hidden = program_of(lambda x: jnp.tanh(x.astype("bfloat16")).astype("float32"), X)
    reduced = program_of(lambda x: jax.lax.reduce_precision(x, 8, 7), X)
    plain, half = program_of(jnp.tanh, X), program_of(lambda x: x.astype("bfloat16") * 2, X)
    found = [find_narrow_dtypes(one) for one in (hidden, reduced, plain, half)]
    assert found == [{"bfloat16"}, {"8 and 7 bits"}, frozenset(), frozenset()]


def test_programs_that_narrow_or_are_not_asked_for_stay_out():
    first, second, third = (ProgramName("call", name) for name in ("a", "b", "c"))
    parts = (
        program_of(jnp.tanh, X, name=first),
        program_of(lambda x: jnp.tanh(x.astype("float16")).astype("float32"), X, name=second),
        program_of(jnp.tanh, X, name=third),
    )
    kept = keep_programs(Programs("linen", False, parts, None, None), frozenset({first, second}))
    assert [part.name for part in kept.parts] == [first]


def test_what_narrows_like_the_other_port_stays():
    name = ProgramName("call", "a")

    def programs(dtype):
        part = program_of(lambda x: jnp.tanh(x.astype(dtype)).astype(x.dtype), X, name=name)
        return Programs("linen", False, (part,), None, None)

    ours = programs("bfloat16")
    kept = [keep_programs(ours, frozenset({name}), programs(dtype)).parts for dtype in ("bfloat16", "float16")]
    assert list(map(len, kept)) == [1, 0]


def test_a_cast_to_fewer_digits_moves_by_their_ulp():
    one, other = moved(lambda x: x.astype("bfloat16").astype("float32"), X)
    assert np.max(np.abs(other - one) / one) > 2**-9
