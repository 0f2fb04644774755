"""Counters of training: which they are, what they are late, and what a step compares them with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.core.output_name import (
    BEGIN,
    STEP,
    InputName,
    bookkeeping_input,
    carried_output,
    optimizer_count,
)
from equiv.programs.counters import COUNTED_STEPS, counter_literals, find_counters
from equiv.programs.program import Program, Programs

COUNT, SMALL, LEAF = optimizer_count("count"), bookkeeping_input("mini_step"), InputName("leaf", leaf="w")


def programs_of(step, first=(0, 0)):
    """Programs with a count, a second counter and a leaf; `step` computes all three anew."""
    names = (COUNT, SMALL, LEAF)

    def outputs(program):
        return tuple(carried_output(program, name) for name in names)

    begin = jax.make_jaxpr(lambda w: [jnp.int32(first[0]), jnp.int32(first[1]), w])(1.0)
    one = jax.make_jaxpr(lambda count, small, w: list(step(count, small, w)))(jnp.int32(0), jnp.int32(0), 1.0)
    return Programs(
        "port", False, (), Program(BEGIN, begin, (LEAF,), outputs(BEGIN)), Program(STEP, one, names, outputs(STEP))
    )


def rounds(count, small, w):
    """As optax's `MultiSteps`: the count goes on once in every eight steps."""
    done = small == 7
    return count + done, (small + 1) % 8, w * jnp.where(done, 0.5, 1.0)


@pytest.mark.parametrize("steps", [(0, 1, 7, 8, 9, 1000), (COUNTED_STEPS - 1, COUNTED_STEPS, 100_000, 12345)])
def test_counters_late_are_what_all_the_steps_would_make(steps):
    found = find_counters(programs_of(rounds)).after(steps)
    assert found[COUNT].tolist() == [step // 8 for step in steps]
    assert found[SMALL].tolist() == [step % 8 for step in steps]
    assert found[COUNT].dtype == np.int32


@pytest.mark.parametrize("number", [3, 200, 2000, 12_345])
def test_the_step_at_which_a_counter_reaches_a_number(number):
    """Of the count, the end of a round too: only there are parameters updated."""
    counters = find_counters(programs_of(rounds))
    assert counters.round == 8
    first = number * 8
    assert {first - 1, first, first + 7} <= set(counters.around(number))


def test_a_counter_that_moves_by_two_reaches_a_number_earlier():
    counters = find_counters(programs_of(lambda count, small, w: (count + 2, small, w)))
    assert counters.round == 1
    assert counters.around(1001) == (500, 501)
    assert counters.around(1_000_001) == (500_000, 500_001)


def test_a_counter_may_begin_anywhere():
    counters = find_counters(programs_of(lambda count, small, w: (count + 2, small, w), first=(5, 3)))
    found = counters.after((0, 10, 10**5))
    assert found[COUNT].tolist() == [5, 25, 5 + 2 * 10**5]
    assert found[SMALL].tolist() == [3, 3, 3]


def test_a_count_that_depends_on_values_is_no_counter():
    """As of steps whose gradient was finite: how many they are is not known without them."""
    counters = find_counters(programs_of(lambda count, small, w: (count + (w > 0), small + 1, w)))
    assert counters.names == (SMALL,)
    assert find_counters(programs_of(lambda count, small, w: (count + (w > 0), small + count, w))) is None


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda count, small, w: (count + 1, small, w * jnp.where(count >= 6, 0.1, 1.0)), {6}),
        (lambda count, small, w: (count + 1, small, w * (jnp.minimum(count, 900) / 800.0)), {900, 800}),
        (rounds, {7, 8}),
        (lambda count, small, w: (count + 1, small, w * 0.5**count * 30.0), set()),
        (
            lambda count, small, w: (
                count + 1,
                small,
                jax.lax.cond(count > 40, lambda w: jnp.where(count < 77, w, -w), lambda w: w, w),
            ),
            {40, 77},
        ),
    ],
)
def test_what_counters_are_compared_with_is_read(step, expected):
    programs = programs_of(step)
    assert set(counter_literals(programs.step, find_counters(programs).names)) == expected
