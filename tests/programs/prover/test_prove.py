"""Proofs between ports made by hand: induction over training steps, and what an output depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from named import make_program, output_named

from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.programs.program import Programs
from equiv.programs.prover.conditions import REORDERED_PRODUCTS
from equiv.programs.prover.dependencies import input_dependencies
from equiv.programs.prover.numbered_port import NumberedPort, all_programs
from equiv.programs.prover.proof import FLOAT64_CONSTANTS, Proof
from equiv.programs.prover.prove import prove


def leaf(name, collection="params", copies=None):
    return MappedLeaf(
        name, NativeKey(collection, name), Identity(), LeafSpec((3,), "float32", collection), (3,), copies
    )


FORWARD = tuple(f"output/{index}" for index in range(3))
LEAVES = ("a", "b", "c", "d")
"""Of the programs made by hand: a, b and c are trained; d is state."""


def program(name, function, inputs, outputs):
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((3,), "float32") for _ in inputs))
    return make_program(name, closed, inputs, outputs)


def begin(*values):
    return values


def forward(a, b, c, d, x):
    return a * x, b + x, d - c


def step(a, b, c, d, x):
    """b learns from a, c from nobody else, d counts."""
    return a - x, b - a * x, c * 0.5, d + 1, jnp.sin(a)


def port(forward=forward, step=step, begin=begin, table=None, float64=None):
    """One port of four leaves; its forward gives `output/0` of a, `output/1` of b and `output/2` of c and d."""
    inputs = (*LEAVES, "batch/x")
    parts = (program("eval __call__", forward, inputs, FORWARD),)
    start = program("begin", begin, LEAVES, LEAVES)
    train = program("step", step, inputs, (*LEAVES, "loss"))
    table = table or LeafTable("some", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state")))
    wide = {part.name: part for part in all_programs(float64)} if float64 else {}
    return NumberedPort(Programs("some", False, parts, start, train), table, wide.get)


def proved(left, right, same_initial_state=frozenset(("d",))):
    """The places proved, warm, and the places proved, cold."""
    found = prove(left, right, same_initial_state)
    return tuple({str(place) for place, _, cold in found if cold is wanted} for wanted in (False, True))


EVERY = {"eval __call__: output/0", "eval __call__: output/1", "eval __call__: output/2"}
TRAINED = {"train: a", "train: b", "train: c", "train: d", "train: loss"}
AFTER = {f"after training, {place}" for place in EVERY}


def test_ports_that_are_one_program_are_proved_everywhere():
    assert proved(port(), port()) == (EVERY | TRAINED | AFTER, TRAINED | AFTER)
    assert set(prove(port(), port(), frozenset(("d",))).values()) == {Proof("proved")}


def test_inputs_of_other_shapes_are_other_inputs():
    """A sum over all of either would be the same."""

    def summing(shape):
        part = make_program("eval __call__", jax.make_jaxpr(jnp.sum)(np.zeros(shape)), ["a"], ["output"])
        return NumberedPort(
            Programs("some", False, (part,), None, None), LeafTable("some", (leaf("a"),)), lambda _: None
        )

    assert not prove(summing((2, 3)), summing((3, 2)), frozenset())
    assert prove(summing((2, 3)), summing((2, 3)), frozenset())


def test_what_a_step_makes_of_a_mirror_may_move():
    """Given d's value, e computes the same in one step; after it, e has a value of its own."""
    leaves = (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state"), leaf("e", "state", "d"))
    inputs = (*LEAVES, "e", "batch/x")
    parts = (program("eval __call__", lambda a, b, c, d, e, x: forward(a, b, c, e, x), inputs, FORWARD),)
    start = program("begin", lambda *values: values, (*LEAVES, "e"), (*LEAVES, "e"))
    train = program(
        "step", lambda a, b, c, d, e, x: (*step(a, b, c, e, x)[:4], e + 2, jnp.sin(a)), inputs, (*LEAVES, "e", "loss")
    )
    mirroring = NumberedPort(Programs("some", False, parts, start, train), LeafTable("some", leaves), lambda _: None)
    warm, cold = proved(port(), mirroring)
    lost = {"train: d", "after training, eval __call__: output/2"}
    assert (EVERY | TRAINED | AFTER) - warm == lost
    assert (TRAINED | AFTER) - cold == lost


def test_a_leaf_that_trains_otherwise_unproves_its_dependents_only():
    """What depends on it is not proved, and everything else is."""
    other = port(step=lambda a, b, c, d, x: (a - 2 * x, b - a * x, c * 0.5, d + 1, jnp.sin(a)))
    warm, cold = proved(port(), other)
    lost = {"train: a", "train: b", "train: loss"}
    lost |= {f"after training, eval __call__: output/{index}" for index in (0, 1)}
    assert (EVERY | TRAINED | AFTER) - warm == lost
    assert (TRAINED | AFTER) - cold == lost


def test_a_leaf_that_nothing_depends_on_takes_nothing_along():
    other = port(step=lambda a, b, c, d, x: (a - x, b - a * x, c * 0.25, d + 1, jnp.sin(a)))
    warm, _ = proved(port(), other)
    assert (EVERY | TRAINED | AFTER) - warm == {"train: c", "after training, eval __call__: output/2"}


def test_another_forward_leaves_training_proved():
    warm, _ = proved(port(), port(forward=lambda a, b, c, d, x: (a * x, b - x, d - c)))
    assert (EVERY | TRAINED | AFTER) - warm == {"eval __call__: output/1", "after training, eval __call__: output/1"}


def test_state_that_starts_otherwise_is_unproved_when_cold_only():
    warm, cold = proved(port(), port(), same_initial_state=frozenset())
    assert warm == EVERY | TRAINED | AFTER
    assert (TRAINED | AFTER) - cold == {"train: d", "after training, eval __call__: output/2"}


def test_a_carry_made_from_unequal_state_starts_unequal():
    """As an average does that starts from a running mean."""
    start = {"begin": lambda a, b, c, d: (a, d * 2, c, d)}
    warm, cold = proved(port(**start), port(**start), same_initial_state=frozenset())
    assert warm == EVERY | TRAINED | AFTER
    assert (TRAINED | AFTER) - cold == {
        "train: b",
        "train: d",
        *(f"after training, eval __call__: output/{index}" for index in (1, 2)),
    }


def test_a_carry_that_starts_from_another_variable_is_unproved():
    warm, _ = proved(port(), port(begin=lambda a, b, c, d: (b, b, c, d)))
    assert TRAINED - warm == {"train: a", "train: b", "train: loss"}


def test_a_swap_of_two_leaves_is_not_proved():
    """Even though the programs are one up to names."""
    other = port(step=lambda a, b, c, d, x: (a - b * x, b - x, c * 0.5, d + 1, jnp.sin(b)))
    warm, _ = proved(port(), other)
    assert warm >= EVERY | {"train: c", "train: d"}
    assert not warm & {"train: a", "train: b", "train: loss"}


def test_rewrites_of_a_kept_leaf_are_named_in_every_place():
    other = port(step=lambda a, b, c, d, x: (a - x, b - a * x, c / 2, d + 1, jnp.sin(a)))
    found = prove(port(), other, frozenset(("d",)))
    trained, output = output_named("train: a"), output_named("eval __call__: output/0")
    assert found[trained, trained, False] == Proof("proved modulo", (REORDERED_PRODUCTS,))
    assert found[output, output, False] == Proof("proved")


def test_a_leaf_only_the_reference_has_is_what_it_repeats():
    ours = LeafTable("haiku", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state", copies="c")))
    warm, _ = proved(port(table=ours), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" in warm
    apart, _ = proved(port(), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" not in apart


def test_constants_that_differ_only_in_float32_are_proved_in_float64():
    one = lambda a, b, c, d, x: (a * np.float32(0.01), b, c)  # noqa: E731
    other = lambda a, b, c, d, x: (a * np.float32(1 - 0.99 + 1e-9), b, c)  # noqa: E731
    wide = port(forward=lambda a, b, c, d, x: (a * 0.25, b, c)).programs
    place = output_named("eval __call__: output/0")
    alone = prove(port(forward=one), port(forward=other), frozenset())
    float64 = prove(port(forward=one, float64=wide), port(forward=other, float64=wide), frozenset())
    assert (place, place, False) not in alone
    assert float64[place, place, False] == Proof("proved modulo", (FLOAT64_CONSTANTS,))


def test_what_is_sliced_before_or_after_is_proved_without_rewrite():
    def sliced_after(a, b, c, d, x):
        return jnp.sin(a * x)[1:2], (b + x)[:2], d[0] - c[0]

    def sliced_before(a, b, c, d, x):
        return jnp.sin(a[1:2] * x[1:2]), b[:2] + x[:2], (d - c)[0]

    one, other = port(sliced_after), port(sliced_before)
    assert proved(one, other)[0] == EVERY | TRAINED | AFTER
    assert {proof.grade for proof in prove(one, other, frozenset(("d",))).values()} == {"proved"}


def test_no_training_is_proved_where_there_is_none():
    one = port()
    one.programs = dataclasses.replace(one.programs, begin=None, step=None)
    assert proved(one, port()) == (EVERY, set())


def dependencies(function, inputs, outputs):
    """Output to the inputs that it depends on, by text."""
    found = input_dependencies(program("step", function, inputs, outputs))
    return {output.text: set(map(str, inputs)) for output, inputs in found.items()}


def test_a_loops_carry_depends_on_what_any_iteration_adds():
    def loop(a, b, c, x):
        return jax.lax.scan(lambda s, row: ((s[0] + s[1], s[1] * row, s[2]), s[2]), (a[0], b[0], c[0]), x)

    found = dependencies(lambda *given: (*loop(*given)[0], loop(*given)[1]), "abcx", "pqrs")
    assert found == {"p": {"a", "b", "x"}, "q": {"b", "x"}, "r": {"c"}, "s": {"c"}}


def test_an_output_depends_on_operands_of_while_and_cond():
    def loops(a, b, c):
        turned = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: s * 2 + a, b)
        return turned, jax.lax.cond(a[0] > 0, lambda: b, lambda: c), jax.jit(jnp.sin)(c)

    found = dependencies(lambda a, b, c: loops(a, b, c)[1:], "abc", "pq")
    assert found == {"p": {"a", "b", "c"}, "q": {"c"}}


def in_two_modes(forward, train_forward):
    """A port whose call is traced in both modes."""
    inputs = (*LEAVES, "batch/x")
    parts = (
        program("eval __call__", forward, inputs, FORWARD),
        program("train __call__", train_forward, inputs, FORWARD),
    )
    table = LeafTable("some", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state")))
    return NumberedPort(Programs("some", False, parts, None, None), table, lambda _: None)


def reordered(a, b, c, d, x):
    return (a * x) * b, b + x, d - c


def ordered(a, b, c, d, x):
    return a * (x * b), b + x, d - c


def numbered_with_rewrites(port):
    return {str(name) for _, rules, name in port.known if rules}


def test_one_call_in_two_modes_is_proved_once():
    left, right = in_two_modes(reordered, reordered), in_two_modes(ordered, ordered)
    found = {str(theirs): proof for (_, theirs, cold), proof in prove(left, right, frozenset()).items() if not cold}
    assert found["eval __call__: output/0"] == found["train __call__: output/0"]
    assert found["train __call__: output/0"].rewrites == (REORDERED_PRODUCTS,)
    assert numbered_with_rewrites(right) == {"eval __call__"}


def test_another_call_in_train_mode_stays_unproved():
    left, right = (
        in_two_modes(reordered, reordered),
        in_two_modes(ordered, lambda a, b, c, d, x: (a * x + b, b + x, d - c)),
    )
    found = {str(theirs) for _, theirs, cold in prove(left, right, frozenset()) if not cold}
    assert "eval __call__: output/0" in found
    assert "train __call__: output/0" not in found
