"""What is proved of a deep model takes as much as it has equations: counts of terms, not seconds."""

import jax
import jax.numpy as jnp
from named import make_program

from equiv.core.leaves import LeafTable
from equiv.programs.jaxpr import count_equations
from equiv.programs.program import Programs
from equiv.programs.prover.algebra import LONG_SUM, Algebra, Sum
from equiv.programs.prover.conditions import CONDITIONS, REORDERED_SUMS
from equiv.programs.prover.dependencies import input_dependencies
from equiv.programs.prover.numbered_port import NumberedPort
from equiv.programs.prover.proof import Proof
from equiv.programs.prover.prove import prove_programs
from equiv.programs.prover.statements import CLOSED_SUMS
from equiv.programs.prover.value_numbering import Numbering, number_program

EVERY_REWRITE = frozenset(CONDITIONS)


def mean(x):
    """The mean of each row."""
    return x.mean(1, keepdims=True)


def one_pass(x):
    """A norm of rows; the variance is that of the square."""
    variance = jnp.maximum(0, mean(x * x) - mean(x) * mean(x))
    return (x - mean(x)) * jax.lax.rsqrt(variance + 1e-5)


def two_pass(x):
    """The same with the variance of what is centred."""
    return (x - mean(x)) * jax.lax.rsqrt(mean(jnp.square(x - mean(x))) + 1e-5)


def residual(depth, norm):
    """The gradients of a residual stream of this depth."""

    def loss(x, *kernels):
        for kernel in kernels:
            x = x + jnp.tanh(norm(x) @ kernel + 2)
        return jnp.sum(x * x)

    structs = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((2, 3), *[(3, 3)] * depth)]
    closed = jax.make_jaxpr(jax.grad(loss, tuple(range(depth + 1))))(*structs)
    names = [f"k{index}" for index in range(depth)]
    return make_program("gradient __call__", closed, ["batch/x", *names], ["output/0", *(f"state {n}" for n in names)])


def count_terms(program, closes):
    """How many terms the sums of a program have, per equation."""
    algebra = Algebra(EVERY_REWRITE, closes=closes)
    number_program(program, Numbering(algebra))
    terms = sum(len(one.terms) for one in algebra.made.values() if isinstance(one, Sum))
    return terms / count_equations(program.jaxpr)


def test_sums_of_a_residual_stream_stay_short():
    shallow, deep = residual(10, one_pass), residual(25, one_pass)
    assert count_terms(deep, closes=True) < 1.1 * count_terms(shallow, closes=True)
    assert count_terms(deep, closes=False) > 1.6 * count_terms(shallow, closes=False)


def clipped(leaves, order=lambda leaves: leaves):
    """The first gradient divided by the norm of all."""

    def first(*gradients):
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(one)) for one in order(gradients)))
        return gradients[0] / jnp.maximum(1.0, norm)

    structs = [jax.ShapeDtypeStruct((3,), "float32")] * leaves
    return make_program("train __call__", jax.make_jaxpr(first)(*structs), [f"g{n}" for n in range(leaves)], ["loss"])


def test_a_norm_of_all_gradients_is_one_sum():
    assert count_terms(clipped(60), closes=False) < 1.1 * count_terms(clipped(20), closes=False)


def test_a_norm_of_gradients_has_all_of_them():
    left = clipped(12)
    assert set(prove_programs(side(left), side(clipped(12, lambda leaves: leaves[::-1]))).values()) == {
        Proof("proved modulo", (REORDERED_SUMS,))
    }
    assert not prove_programs(side(left), side(clipped(12, lambda leaves: (*leaves[:-1], leaves[0]))))
    assert not prove_programs(side(left), side(clipped(12, lambda leaves: leaves[:-1])))


def test_an_equation_without_results_is_no_step_of_a_sum():
    def printed(*leaves):
        total = sum(leaves)
        jax.debug.print("{}", total)
        return total

    structs = [jax.ShapeDtypeStruct((3,), "float32")] * 12
    closed = jax.make_jaxpr(printed)(*structs)
    program = make_program("call", closed, [f"a{n}" for n in range(12)], ["output/0"])
    assert number_program(program, Numbering(Algebra(EVERY_REWRITE)))


def side(program):
    """A port of one program."""
    return NumberedPort(Programs("some", False, (program,), None, None), LeafTable("some", ()), lambda _: None)


def test_deep_gradients_are_proved_with_short_sums_alone():
    left, right = side(residual(10, one_pass)), side(residual(10, two_pass))
    assert len(prove_programs(left, right)) == 11
    tried = {rules for _, rules, _ in left.known}
    assert EVERY_REWRITE | CLOSED_SUMS in tried
    assert EVERY_REWRITE not in tried


def long_sum(u):
    """A sum that is used alone, and as a part of a longer one."""
    s = sum(u[:LONG_SUM], u[LONG_SUM])
    return jnp.sin(s), s + u[-1]


def other_order(u):
    """The same; the longer sum begins with its last term."""
    return jnp.sin(sum(u[:LONG_SUM], u[LONG_SUM])), sum(u[: LONG_SUM + 1], u[-1])


def test_sums_that_are_used_otherwise_are_proved_flat():
    names = [f"a{index}" for index in range(LONG_SUM + 2)]
    structs = [jax.ShapeDtypeStruct((3,), "float32")] * len(names)
    left, right = (
        side(make_program("eval __call__", jax.make_jaxpr(lambda *u, f=f: f(u))(*structs), names, ["output/0", "loss"]))
        for f in (long_sum, other_order)
    )
    proofs = {pair[0].kind: proof for pair, proof in prove_programs(left, right).items()}
    assert proofs == {"output": Proof("proved"), "loss": Proof("proved modulo", (REORDERED_SUMS,))}


def test_dependencies_are_sets_of_inputs():
    needs = input_dependencies(residual(3, one_pass))
    assert all(set(needs.inputs) == found for found in needs.values())
    assert needs.names(needs.mask(needs.inputs[:2])) == set(needs.inputs[:2])
