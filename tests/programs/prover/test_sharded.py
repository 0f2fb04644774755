"""`shard_map`: proved by its body with the axes of its mesh bound; another division or collective is another."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from named import make_program

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.value_numbering import Numbering, number_program

LINE = AbstractMesh((4,), ("x",), axis_types=(AxisType.Auto,))
GRID = AbstractMesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
ONE = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,))
ROWS, NOTHING = P("x"), P()


def names(function, rules=frozenset()):
    """Names of what a function gives of an array of 8 x 4."""
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((8, 4), "float32"))
    program = make_program("program", closed, ["x"], [f"output/{n}" for n in range(len(closed.out_avals))])
    return [value.name for value in number_program(program, Numbering(Algebra(rules))).values()]


def mapped(body, given=ROWS, made=ROWS, mesh=LINE, check=True):
    return jax.shard_map(body, mesh=mesh, in_specs=given, out_specs=made, check_vma=check)


def gradient(function):
    return jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))


def total(body, **options):
    """A sum over the devices of what each computes."""
    return mapped(lambda x: lax.psum(body(x), "x"), made=NOTHING, **options)


EQUAL = {
    "operands exchanged": (total(lambda x: x * 2), total(lambda x: 2 * x)),
    "one device": (total(lambda x: x * 2, mesh=ONE), total(lambda x: 2 * x, mesh=ONE)),
    "a division with more words": (mapped(jnp.tanh, P("x", None)), mapped(jnp.tanh, P(("x",)))),
    "a turned collective": (
        mapped(lambda x: x * lax.all_gather(x.T, "x", axis=1, tiled=True).sum()),
        mapped(lambda x: lax.all_gather(jnp.transpose(x), "x", axis=1, tiled=True).sum() * x),
    ),
    "the index of a device": (
        mapped(lambda x: x * lax.axis_index("x")),
        mapped(lambda x: lax.axis_index("x") * x),
    ),
    "other residuals": (
        gradient(total(lambda x: x * jnp.sin(x))),
        gradient(total(lambda x: jnp.sin(x) * x)),
    ),
}

DIFFERENT = {
    "without its collective": (total(jnp.tanh, check=False), mapped(jnp.tanh, made=NOTHING, check=False)),
    "without it on one device": (
        total(jnp.tanh, check=False, mesh=ONE),
        mapped(jnp.tanh, made=NOTHING, check=False, mesh=ONE),
    ),
    "a mean for a sum": (total(jnp.tanh), mapped(lambda x: lax.pmean(jnp.tanh(x), "x"), made=NOTHING)),
    "divided along the other axis": (
        mapped(lambda x: x * lax.axis_index("x")),
        mapped(lambda x: x * lax.axis_index("x"), P(None, "x"), P(None, "x")),
    ),
    "not divided": (total(jnp.tanh, check=False), total(jnp.tanh, given=NOTHING, check=False)),
    "another mesh": (
        mapped(lambda x: x * lax.axis_index("x")),
        mapped(lambda x: x * lax.axis_index("x"), mesh=GRID),
    ),
    "another axis of the mesh": (
        mapped(lambda x: x * lax.axis_index("x"), P("x", "y"), P("x", "y"), GRID),
        mapped(lambda x: x * lax.axis_index("y"), P("x", "y"), P("x", "y"), GRID),
    ),
    "sent the other way": (
        mapped(lambda x: lax.ppermute(x, "x", [(n, (n + 1) % 4) for n in range(4)])),
        mapped(lambda x: lax.ppermute(x, "x", [(n, (n - 1) % 4) for n in range(4)])),
    ),
    "no shard_map": (mapped(jnp.tanh), jnp.tanh),
    "parts that differ, of which the result has one": (
        lambda x: mapped(jnp.sin, NOTHING, NOTHING, check=False)(
            mapped(lambda v: v[:1] * lax.axis_index("x"), ROWS, NOTHING, check=False)(x)
        ),
        lambda x: mapped(lambda v: jnp.sin(v[:1] * lax.axis_index("x")), ROWS, NOTHING, check=False)(x),
    ),
}


@pytest.mark.parametrize("pair", EQUAL)
def test_bodies_that_compute_the_same_are_proved(pair):
    one, other = EQUAL[pair]
    assert names(one) == names(other)


@pytest.mark.parametrize("rules", [frozenset(), frozenset(CONDITIONS)], ids=["no_rewrites", "all_rewrites"])
@pytest.mark.parametrize("pair", DIFFERENT)
def test_another_division_or_collective_is_not_proved(pair, rules):
    one, other = DIFFERENT[pair]
    assert names(one, rules) != names(other, rules)


def test_a_rewrite_holds_on_every_device():
    one, other = total(lambda x: x * 2 + x), total(lambda x: 3 * x)
    assert names(one) != names(other)
    assert names(one, frozenset(CONDITIONS)) == names(other, frozenset(CONDITIONS))


def test_a_part_of_each_element_is_no_whole():
    """What is not summed up over the devices yet is a symbol."""
    mesh = AbstractMesh((4,), ("x",), axis_types=(AxisType.Explicit,))

    def unreduced(number):
        def each(x):
            return lax.pcast(number * x, "x", to="unreduced")

        def function(x):
            with jax.sharding.use_abstract_mesh(mesh):
                return jax.shard_map(each, in_specs=ROWS, out_specs=P(unreduced={"x"}))(jax.sharding.reshard(x, ROWS))

        return function

    assert names(unreduced(2)) == names(unreduced(2))
    assert names(unreduced(2)) != names(unreduced(3))
