"""Whether a proof in float64 needs that casts are left out: where they are is read from the port's own dtypes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from equiv.core.leaves import LeafTable
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.errors import PortError
from equiv.programs.keep_casts import float_dtypes, has_casts, keep_casts, leave_casts_out
from equiv.programs.program import Program, Programs
from equiv.programs.prover.numbered_port import NumberedPort
from equiv.programs.prover.proof import FLOAT64_CASTS, FLOAT64_CONSTANTS, READ_CONSTANTS, Proof
from equiv.programs.prover.prove import prove
from equiv.programs.transform import make_draws_inputs

Function = Callable[[Any], Any]

NAME, SIZE = ProgramName("call", "f"), (4, 4)
OUTPUT = OutputName(NAME, "output")
CONSTANTS, CASTS = (FLOAT64_CONSTANTS,), (FLOAT64_CONSTANTS, FLOAT64_CASTS)
HALF, FULL = jnp.float16, jnp.float32


def traced(function: Function, dtype: str) -> Program:
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(SIZE, dtype))
    return Program(NAME, closed, (InputName("batch", "x"),), (OUTPUT,))


def port(function: Function, dtype: str) -> NumberedPort:
    own = traced(function, dtype)
    with jax.enable_x64(True):
        lifted = make_draws_inputs(traced(function, "float64"), float64=True)

    def kept(_: ProgramName) -> Program:
        with jax.enable_x64(True):
            return keep_casts(own, lifted)

    def rounded(_: ProgramName) -> Program:
        with jax.enable_x64(True):
            return leave_casts_out(own)

    programs = Programs("some", False, (own,), None, None)
    return NumberedPort(programs, LeafTable("some", (), "some"), lambda _: lifted, kept, rounded)


def proof(one: Function, other: Function, dtype: str = "float16") -> Proof | None:
    return prove(port(one, dtype), port(other, dtype), frozenset()).get((OUTPUT, OUTPUT, False))


def named(one: Function, other: Function, dtype: str = "float16") -> tuple[str, ...] | None:
    found = proof(one, other, dtype)
    return None if found is None else tuple(name for name in found.rewrites if name in CASTS)


def hundredth(x: Any) -> Any:
    """0.01, computed in the dtype of x: in float32 it has lost a digit."""
    return jnp.ones((), x.dtype) - jnp.asarray(0.99, x.dtype)


def root(x: Any) -> Any:
    return x / jnp.sqrt(jnp.mean(x * x))


def half_sine(x: Any) -> Any:
    return jnp.sin(x.astype(HALF)).astype(x.dtype)


SAME_CASTS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda x, c: x * c,
    "before": lambda x, c: half_sine(x) * c,
    "after": lambda x, c: half_sine(jnp.cos(x * c)),
    "product in float32": lambda x, c: lax.dot(x.astype(HALF), x.astype(HALF), preferred_element_type=FULL) * c,
    "precision": lambda x, c: lax.reduce_precision(jnp.sin(x), exponent_bits=5, mantissa_bits=10) * c,
    "in a loop": lambda x, c: lax.scan(lambda s, row: (s + half_sine(row) * c, s), x[0], x)[1],
    "in a branch": lambda x, c: lax.cond(x[0, 0] > 0, half_sine, jnp.cos, x * c),
    "of a mask": lambda x, c: half_sine(x) * c * (x > 0).astype(HALF).astype(x.dtype),
}
"""Functions of x and a constant."""


OTHER_CASTS: dict[str, tuple[Function, Function, str]] = {
    "upcast": (root, lambda x: root(x.astype(FULL)).astype(HALF), "float16"),
    "bfloat16": (root, lambda x: root(x.astype(FULL)).astype(jnp.bfloat16), "bfloat16"),
    "downcast": (lambda x: jnp.sin(x), lambda x: jnp.sin(x.astype(HALF)).astype(FULL), "float32"),
    "another narrow dtype": (
        lambda x: jnp.sin(x.astype(jnp.bfloat16)).astype(FULL),
        lambda x: jnp.sin(x.astype(HALF)).astype(FULL),
        "float32",
    ),
    "cast before or after": (
        lambda x: jnp.sin(x.astype(HALF)).astype(FULL),
        lambda x: jnp.sin(x).astype(HALF).astype(FULL),
        "float32",
    ),
    "product in float32": (
        lambda x: lax.dot(x, x),
        lambda x: lax.dot(x, x, preferred_element_type=FULL).astype(HALF),
        "float16",
    ),
    "precision": (
        lambda x: jnp.sin(x),
        lambda x: lax.reduce_precision(jnp.sin(x), exponent_bits=5, mantissa_bits=10),
        "float32",
    ),
    "in a loop": (
        lambda x: lax.scan(lambda s, row: (s + half_sine(row), s), x[0], x)[1],
        lambda x: lax.scan(lambda s, row: (s + jnp.sin(row), s), x[0], x)[1],
        "float32",
    ),
    "in a branch": (
        lambda x: lax.cond(x[0, 0] > 0, half_sine, jnp.cos, x),
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        "float32",
    ),
}
"""Casts at other places: to two functions, and the dtype of x."""


@pytest.mark.parametrize("name", SAME_CASTS)
def test_casts_at_the_same_places_are_no_rewrite(name: str) -> None:
    function = SAME_CASTS[name]
    assert named(lambda x: function(x, 0.01), lambda x: function(x, hundredth(x)), "float32") == CONSTANTS


@pytest.mark.parametrize("name", OTHER_CASTS)
def test_casts_at_other_places_are_named(name: str) -> None:
    assert named(*OTHER_CASTS[name]) == CASTS


@pytest.mark.parametrize("name", OTHER_CASTS)
def test_a_program_is_equal_to_itself_without_rewrites(name: str) -> None:
    one, other, dtype = OTHER_CASTS[name]
    assert proof(one, one, dtype) == proof(other, other, dtype) == Proof("proved")


def test_another_function_is_not_proved_by_its_casts() -> None:
    assert proof(root, lambda x: root(x.astype(FULL) + 1).astype(HALF)) is None


def test_a_truth_value_is_the_same_number_in_every_dtype() -> None:
    """A mask in float16 or in bfloat16 is the same mask."""
    one = lambda x: half_sine(x) * 0.01 * (x > 0).astype(HALF).astype(x.dtype)  # noqa: E731
    other = lambda x: half_sine(x) * hundredth(x) * (x > 0).astype(jnp.bfloat16).astype(x.dtype)  # noqa: E731
    assert named(one, other, "float32") == CONSTANTS


def test_constants_are_those_of_the_float64_trace() -> None:
    """In float32 a third is 0.33333334, and that decimal is no third."""
    own = port(lambda x: half_sine(x) * np.asarray(1 / 3, x.dtype), "float32")
    with jax.enable_x64(True):
        kept = own.kept_program(NAME)
    assert kept is not None
    numbers = [float(atom.val) for eqn in kept.jaxpr.eqns for atom in eqn.invars if hasattr(atom, "val")]
    assert [*numbers, *map(float, kept.jaxpr.consts)] == [1 / 3]


def test_dtypes_of_a_program_are_those_on_the_way_too() -> None:
    assert float_dtypes(traced(half_sine, "float32")) == {"float16", "float32"}
    assert has_casts(traced(half_sine, "float32"))
    assert not has_casts(traced(root, "float32"))
    assert has_casts(traced(lambda x: lax.reduce_precision(x, 5, 10), "float32")), "rounded, in one dtype"


def test_casts_inside_of_an_operation_are_not_kept() -> None:
    def solve(x: Any) -> Any:
        return lax.custom_linear_solve(lambda b: (b.astype(HALF) * 2).astype(FULL), x, lambda _, b: b / 2)

    with pytest.raises(PortError, match="casts inside of custom_linear_solve cannot be kept"):
        port(solve, "float32").kept_program(NAME)


def divided_before(number: Callable[[], Any]) -> Function:
    """x in float16, divided and then looked at."""
    return lambda x: jnp.cos(x.astype(HALF) / number()).astype(x.dtype)


def divided_after(number: Callable[[], Any]) -> Function:
    """The same with another cast on the way."""
    return lambda x: jnp.cos((x.astype(HALF) / number()).astype(x.dtype))


COMPUTED = lambda: jnp.sqrt(8.0).astype(HALF)  # noqa: E731
"""Of which a float64 trace has all digits."""


def test_numbers_rounded_alike_are_the_same_number() -> None:
    """NumPy rounds the square root before it is traced, whatever the trace."""
    known = np.asarray(np.sqrt(8.0), HALF)
    assert named(divided_before(COMPUTED), divided_after(lambda: known), "float32") == (FLOAT64_CASTS,)


@pytest.mark.parametrize("number", [2.83, np.nextafter(np.float16(8**0.5), np.float16(3))])
def test_numbers_rounded_to_others_are_not(number: float) -> None:
    known = np.asarray(number, HALF)
    assert named(divided_before(COMPUTED), divided_after(lambda: known), "float32") is None


READ = (FLOAT64_CASTS, READ_CONSTANTS)

ROOT = np.asarray(np.sqrt(8.0), HALF)
"""2.828125, for which float32 has 2.828427."""


def in_float32(change: Function) -> Function:
    """x in float16, changed in float32 and then looked at."""
    return lambda x: jnp.cos(change(x.astype(HALF).astype(FULL)).astype(HALF)).astype(x.dtype)


@pytest.mark.parametrize(
    "change", [lambda x: x / np.float32(8**0.5), lambda x: x * np.float32(8**-0.5)], ids=["itself", "one over it"]
)
def test_a_number_that_one_port_rounds_is_read(change: Function) -> None:
    """One divides by 2.828125 in float16, the other one by 2.828427 in float32, or multiplies by one over it."""
    found = proof(divided_after(lambda: ROOT), in_float32(change), "float32")
    assert found is not None
    assert tuple(name for name in found.rewrites if name in READ) == READ
    assert proof(in_float32(change), divided_after(lambda: ROOT), "float32") == found


@pytest.mark.parametrize(
    ("own", "other"),
    [
        pytest.param(ROOT, 2.8292, id="the next number of float16 is nearer"),
        pytest.param(ROOT, 2.827, id="so is the one before"),
        pytest.param(np.float16(2), 2.0004, id="written exactly"),
        pytest.param(np.float16(0.125), 0.12501, id="a power of two"),
        pytest.param(ROOT, 1.41421, id="half of it"),
    ],
)
def test_other_numbers_are_not_read(own: np.ndarray, other: float) -> None:
    for change in (lambda x: x / np.float32(other), lambda x: x * np.float32(1 / other)):
        assert proof(divided_after(lambda: own), in_float32(change), "float32") is None


def test_a_number_of_both_ports_stays_what_it_is() -> None:
    """It may still be what another number is read as."""
    one = in_float32(lambda x: x * np.float32(8**0.5))
    assert (
        proof(
            lambda x: one(divided_after(lambda: ROOT)(x)),
            lambda x: one(in_float32(lambda x: x / np.float32(8**0.5))(x)),
            "float32",
        )
        is not None
    )
    assert (
        proof(
            lambda x: divided_after(lambda: ROOT)(x) * ROOT,
            lambda x: divided_after(lambda: ROOT)(x) * np.float32(8**0.5),
            "float32",
        )
        is None
    )


def test_numbers_in_loops_and_branches_are_computed() -> None:
    known = np.asarray(np.sqrt(8.0), HALF)

    def looped(cast_after: bool, number: Callable[[], Any]) -> Function:
        def row(x: Any) -> Any:
            return (divided_after if cast_after else divided_before)(number)(x)

        return lambda x: lax.scan(lambda s, one: (s + lax.cond(s[0] > 0, row, jnp.sin, one), s), x[0], x)[1]

    assert named(looped(False, COMPUTED), looped(True, lambda: known), "float32") == (FLOAT64_CASTS,)
