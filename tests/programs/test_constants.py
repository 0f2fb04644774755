"""Constants of float64 programs: which are known exactly, where they are, what else is computed, and read otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.programs.constants import (
    LARGEST_TABLE,
    Reading,
    constant_key,
    find_computed,
    find_constants,
    last_digits,
    read_programs,
)
from equiv.programs.program import Program, Programs

CALL = ProgramName("call", "__call__")
NAMES = frozenset({CALL})
X = np.linspace(0.3, 1.9, 4)
ROOT = float(np.float32(8**0.5))


def programs_of(function) -> Programs:
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(lambda x: [function(x)])(X)
    return Programs(
        "port", True, (Program(CALL, jaxpr, (InputName("batch", "x"),), (OutputName(CALL, "output"),)),), None, None
    )


@pytest.mark.parametrize("number", [0.0, 2.0, -0.125, 1024.0, 3.0, 123456.0, np.inf, np.nan])
def test_a_number_that_float32_has_as_written_stays(number: float) -> None:
    assert last_digits(np.array(number)) == 0


@pytest.mark.parametrize("number", [ROOT, 2.828427, 8**0.5, 0.1, 1e-5, 0.7978845608, 1 / 3])
def test_another_number_has_the_last_digit_of_float32(number: float) -> None:
    digit = float(last_digits(np.array(number)))
    assert digit == np.spacing(np.float32(number))
    assert 5.9e-8 < digit / number < 1.2e-7


IN_LOOPS = {
    "a call": lambda x: jax.jit(lambda z: z * ROOT)(x),
    "a scan": lambda x: jax.lax.scan(lambda z, _: (z * ROOT, None), x, None, length=1)[0],
    "a while": lambda x: jax.lax.while_loop(lambda z: z.sum() < 2, lambda z: z * ROOT, x / x.sum()) * x.sum(),
    "a branch": lambda x: jax.lax.cond(x.sum() > 0, lambda z: z * ROOT, lambda z: z, x),
    "a table": lambda x: x * np.full(4, ROOT),
}


@pytest.mark.parametrize("name", IN_LOOPS)
def test_a_constant_is_found_and_read_wherever_it_is(name: str) -> None:
    programs = programs_of(IN_LOOPS[name])
    found = [one for one in find_constants(programs, NAMES).values() if last_digits(one.value).any()]
    assert [set(one.value.ravel()) for one in found] == [{ROOT}]
    assert found[0].place is not None
    assert found[0].place.file.endswith("test_constants.py")
    value = found[0].value
    reading = Reading(value, np.full(value.shape, 1e-3), np.full(value.shape, 1))
    read = read_programs(programs, NAMES, {constant_key(value): reading}, 2).parts[0]
    with jax.enable_x64(True):
        outputs = [np.asarray(jaxpr_as_fun(read.jaxpr)(X, np.array([5.0, one]))[0]) for one in (0.0, 1.0)]
    np.testing.assert_allclose(outputs[0], X * ROOT, rtol=1e-12)
    np.testing.assert_allclose(outputs[1], X * (ROOT + 1e-3), rtol=1e-12)


def test_tables_computed_from_constants_round_as_float32_would() -> None:
    def function(x):
        angles = jnp.arange(4.0) * 300.7
        return x + jnp.cos(angles) + jnp.zeros(LARGEST_TABLE + 1).sum()

    tables = find_computed(programs_of(function), NAMES)
    cosine = next(one for one in tables if np.allclose(one.value, np.cos(np.arange(4) * 300.7)))
    in_float32 = np.cos((np.arange(4, dtype="float32") * np.float32(300.7)).astype("float64"))
    assert np.all(np.abs(in_float32 - cosine.value) <= cosine.rounding)
    assert np.all(cosine.rounding < 300.7 * 4 * 2e-7)
    assert max(one.value.size for one in tables) <= LARGEST_TABLE
