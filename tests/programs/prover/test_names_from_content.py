"""An operation's name comes from the content of its parameters: never from how they are printed."""

import ast
import enum
import functools
import inspect
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback
from jax.extend.core import Primitive
from named import make_program, trace_named

from equiv.programs import built_case
from equiv.programs.prover.value_numbering import number_program
from equiv.programs.prover.version import NAMING_MODULES
from equiv.programs.transform import make_draws_inputs

MESH = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
P = jax.sharding.PartitionSpec
X = jax.ShapeDtypeStruct((3, 3), "float32")
HIGH, LOW = lax.Precision.HIGHEST, lax.Precision.DEFAULT


def names(function, *inputs):
    """The names of a function's results on square matrices."""
    closed = jax.make_jaxpr(function)(*(inputs or (X,)))
    outputs = [f"output/{index}" for index in range(len(closed.jaxpr.outvars))]
    given = [f"input {index}" for index in range(len(closed.jaxpr.invars))]
    return [value.name for value in number_program(make_program("program", closed, given, outputs)).values()]


def called(host, x):
    """A host function of an array, as a pure callback."""
    return jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


class Host:
    """Cuts off what is larger than a limit, and does not show the limit."""

    def __init__(self, limit):
        self.limit = limit

    def __repr__(self):
        return "Host()"

    def __call__(self, y):
        return self.cut(y)

    def cut(self, y):
        return np.where(np.asarray(y) > self.limit, 0, y).astype("float32")


@dataclass(frozen=True)
class Cut:
    """The same as a frozen dataclass: it is its fields."""

    limit: float

    def __repr__(self):
        return "Cut()"

    __call__ = Host.cut


@dataclass(frozen=True)
class HiddenCut(Cut):
    """Keeps something else than its fields."""

    def __post_init__(self):
        object.__setattr__(self, "other", Host(self.limit))


class Kind(enum.Enum):
    """Members that read alike."""

    ONE, TWO = 1, 2

    def __str__(self):
        return "kind"

    __repr__ = __str__


def choose(y, option):
    """A host function with an option."""
    return y if option else -y


def add_table(table, y):
    return np.asarray(y) + np.resize(table, np.shape(y)).astype("float32")


def with_option(option):
    return lambda x: called(functools.partial(choose, option=option), x)


def table(last):
    """More elements than numpy prints; the changed one is in the middle."""
    numbers = np.zeros(3000, "float32")
    numbers[1500] = last
    return numbers


def mapped(inner):
    """A function in a `shard_map`, whose jaxpr is a parameter."""
    return jax.shard_map(inner, mesh=MESH, in_specs=P("d"), out_specs=P("d"))


def jitted(last):
    row = np.asarray([1, 2, last], "float32")
    return mapped(jax.jit(lambda v: v * row))


def custom(last):
    """A function with a derivative of its own that closes over an array."""
    row = np.asarray([1, 2, last], "float32")

    @jax.custom_jvp
    def times(v):
        return v * row

    times.defjvp(lambda primals, tangents: (times(*primals), tangents[0] * row))
    return mapped(times)


def looped(last):
    row = np.asarray([1, 2, last], "float32")
    return mapped(lambda v: lax.fori_loop(0, 3, lambda _, carry: carry * row, v))


def branched(last):
    row = np.asarray([1, 2, last], "float32")
    return mapped(lambda v: lax.cond(v.sum() > 0, lambda v: v * row, lambda v: v, v))


def dotted(precision, swap=False):
    """A product of two different matrices, written as it is or transposed twice."""

    def product(x):
        y = jnp.tanh(x)
        return lax.dot(y.T, x.T, precision=precision).T if swap else lax.dot(x, y, precision=precision)

    return product


def algorithm(left, right):
    one, other = (jnp.bfloat16, jnp.float32)[left], (jnp.bfloat16, jnp.float32)[right]
    return lax.DotAlgorithm(np.dtype(one), np.dtype(other), np.dtype("float32"), 1, 1, 1, False)


def own_primitive(**params):
    """A primitive that is none of jax's, whatever it is called."""
    primitive = Primitive("tanh")
    primitive.def_abstract_eval(lambda x, **_: x)
    return lambda x: primitive.bind(x, **params)


class ForeignPrimitive(Primitive):
    """Not a class of jax, so that it does not count among the primitives that the table has to have."""


SHARED = ForeignPrimitive("shared")
SHARED.def_abstract_eval(lambda x, **_: x)


def reduced(number):
    return lambda x: lax.reduce(x, np.float32(0), lambda a, b: a * number + b, (0,))


def keyed(seed):
    """Numbers of a constant key."""
    key = jax.random.key(seed)
    return lambda x: x + jax.random.key_data(key).sum().astype("float32")


DIFFERENT = {
    "two callbacks of one repr": (lambda x: called(Host(50.0), x), lambda x: called(Host(1e9), x)),
    "two bound methods": (lambda x: called(Host(50.0).cut, x), lambda x: called(Host(1e9).cut, x)),
    "two frozen dataclasses": (lambda x: called(Cut(50.0), x), lambda x: called(Cut(1e9), x)),
    "what a dataclass hides": (lambda x: called(HiddenCut(5.0), x), lambda x: called(HiddenCut(5.0), x)),
    "a large table in a partial": (
        lambda x: called(functools.partial(add_table, table(1)), x),
        lambda x: called(functools.partial(add_table, table(2)), x),
    ),
    "the bytes of a table": (with_option(np.float32([0.0])), with_option(np.float32([-0.0]))),
    "the dtype of a table": (with_option(np.int32([1])), with_option(np.uint32([1]))),
    "the shape of a table": (with_option(np.zeros((2, 3))), with_option(np.zeros((3, 2)))),
    "a number and its text": (with_option(1), with_option("1")),
    "one and true": (with_option(1), with_option(True)),
    "a large whole number": (with_option(2**70), with_option(2**70 + 1)),
    "a tuple and a list": (with_option((1, 2)), with_option([1, 2])),
    "one set more": (with_option({1, 2}), with_option({1, 2, 3})),
    "keys of a dict": (with_option({"a": 1}), with_option({"b": 1})),
    "members that read alike": (with_option(Kind.ONE), with_option(Kind.TWO)),
    "two lambdas of one text": (lambda x: called(lambda y: y, x), lambda x: called(lambda y: y, x)),
    "a constant of a jit in a shard_map": (jitted(3), jitted(4)),
    "a constant of a custom_jvp in a shard_map": (custom(3), custom(4)),
    "a constant of a loop in a shard_map": (looped(3), looped(4)),
    "a constant of a branch in a shard_map": (branched(3), branched(4)),
    "where a shard_map divides": (
        jitted(3),
        lambda x: jax.shard_map(lambda v: v, mesh=MESH, in_specs=P(None, "d"), out_specs=P(None, "d"))(x),
    ),
    "precisions that stay where operands move": (dotted((HIGH, LOW)), dotted((HIGH, LOW), swap=True)),
    "an algorithm that stays where operands move": (dotted(algorithm(0, 1)), dotted(algorithm(0, 1), swap=True)),
    "the accuracy of exp": (lambda x: lax.exp(x, accuracy=lax.AccuracyMode.HIGHEST), lax.exp),
    "two primitives of one name": (own_primitive(), own_primitive()),
    "a primitive that borrows a name": (own_primitive(), lax.tanh),
    "a parameter called name": (lambda x: SHARED.bind(x, name="sin"), lambda x: SHARED.bind(x, name="cos")),
    "the function of a reduction": (reduced(2), reduced(3)),
    "two constant keys": (keyed(1), keyed(2)),
}


def same_host(y):
    return np.asarray(y)


SAME = {
    "the same function": (lambda x: called(same_host, x), lambda x: called(same_host, x)),
    "equal frozen dataclasses": (lambda x: called(Cut(50.0), x), lambda x: called(Cut(50.0), x)),
    "equal tables in a partial": (
        lambda x: called(functools.partial(add_table, table(1)), x),
        lambda x: called(functools.partial(add_table, table(1)), x),
    ),
    "equal options": (
        with_option({"a": [1, 2.5, None, "é", Kind.ONE]}),
        with_option({"a": [1, 2.5, None, "é", Kind.ONE]}),
    ),
    "equal constants of a jit": (jitted(3), jitted(3)),
    "equal constants of a custom_jvp": (custom(3), custom(3)),
    "equal constants of a loop": (looped(3), looped(3)),
    "equal constants of a branch": (branched(3), branched(3)),
    "precisions that move with their operands": (dotted((HIGH, LOW)), dotted((LOW, HIGH), swap=True)),
    "an algorithm that moves with its operands": (dotted(algorithm(0, 1)), dotted(algorithm(1, 0), swap=True)),
    "the same function of a reduction": (reduced(2), reduced(2)),
    "equal constant keys": (keyed(1), keyed(1)),
    "a solver": (lambda x: jnp.linalg.solve(x, x.T), lambda x: jnp.linalg.solve(x, x.T)),
}


@pytest.mark.parametrize("pair", DIFFERENT)
def test_operations_with_other_content_have_other_names(pair):
    one, other = DIFFERENT[pair]
    assert names(one) != names(other)


@pytest.mark.parametrize("pair", SAME)
def test_operations_of_equal_content_have_one_name(pair):
    one, other = SAME[pair]
    assert names(one) == names(other)


def test_what_has_effects_never_repeats_its_name():
    """A host function that may count its calls, and a reference that is written between two reads."""

    def read_twice(x):
        reference = jax.new_ref(x)
        before = reference[...]
        reference[...] = 2 * before
        return before, reference[...]

    def call_twice(x):
        return [io_callback(same_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x) for _ in range(2)]

    for function in (read_twice, call_twice):
        first, second = names(function)
        assert first != second


def test_keys_from_two_hosts_of_one_repr_are_two_draws():
    """Draws of one name would get the same bits."""

    def draw(limit, named):
        host = Host(limit)
        number = jax.pure_callback(lambda: np.int32(host.limit), jax.ShapeDtypeStruct((), "int32"))
        return jax.random.normal(jax.random.fold_in(named["key"], number), (3,))

    def drawn(*limits):
        specs = {"key": jax.eval_shape(lambda: jax.random.key(0))}
        summed = trace_named("p", lambda named: {"output": sum(draw(limit, named) for limit in limits)}, specs)
        return len(make_draws_inputs(summed, False).draws)

    assert drawn(50.0) == 1
    assert drawn(50.0, 1e9) == 2


ACROSS = """
import json, jax, numpy as np
import test_names_from_content as own
print(json.dumps({name: own.names(function) for name, function in own.ACROSS_PROCESSES.items()}))
"""

ACROSS_PROCESSES = {
    "function": lambda x: called(same_host, x),
    "dataclass": lambda x: called(Cut(50.0), x),
    "enum": with_option(Kind.ONE),
    "primitive": lambda x: SHARED.bind(x),
    "effect": lambda x: io_callback(same_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    "keys": keyed(1),
    "seeds": lambda x: x + jax.random.normal(jax.random.fold_in(jax.random.key(3), 1), x.shape),
    "other keys": lambda x: x + jax.random.normal(jax.random.key(3, impl="rbg"), x.shape),
    "shard_map": jitted(3),
    "solver": SAME["a solver"][0],
    "product": dotted((HIGH, LOW)),
    "scatter": lambda x: x.at[jnp.array([0, 2])].add(1.0, mode="drop"),
    "convolution": lambda x: lax.conv(x[None, None], x[None, None], (1, 1), "SAME"),
    "pooling": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME"),
    "reduction": reduced(2),
}


def test_only_names_from_content_are_equal_in_another_process():
    """A frozen reference takes names along; the user's own code may have changed in between."""
    here = {name: names(function) for name, function in ACROSS_PROCESSES.items()}
    folder = Path(__file__).parent
    paths = [str(folder), str(folder.parent.parent), *sys.path]
    code = f"import sys; sys.path[:0] = {paths!r}\n{ACROSS}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = json.loads(done.stdout.splitlines()[-1])
    own = {"function", "dataclass", "enum", "primitive", "effect"}
    assert {name for name in here if here[name] != there[name]} == own


TEXT_CALLS = ("str", "repr", "ascii", "format", "id", "hash")
ALLOWED = {
    "identity.py": {"id"},
    "jaxpr.py": {"str", "f-string"},
    "draws.py": {"f-string"},
    "transform.py": {"str", "f-string"},
}
"""File to what it may use: an address beside the object that is there; an equation's place, for people; a dtype."""


def printed_forms(source):
    """What makes a text or a number of any object: `str(x)`, `map(repr, xs)`, `f"{x}"`; sentences of errors may."""
    found, tree = set(), ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    told = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id.endswith("Error")]
    sentences = {id(inner) for node in told for inner in ast.walk(node)}
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        found |= {name} & {*TEXT_CALLS, "__str__", "__repr__"}
        if name != "isinstance":
            passed = (*call.args, *(keyword.value for keyword in call.keywords))
            found |= {one.id for one in passed if isinstance(one, ast.Name) and one.id in TEXT_CALLS}
    # With a format it is a number, of so many digits.
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec is None)
    return found | {"f-string" for node in texts if id(node) not in sentences}


@pytest.mark.parametrize("module", [*NAMING_MODULES, built_case], ids=lambda module: module.__name__)
def test_no_name_comes_from_a_printed_form(module):
    path = Path(inspect.getfile(module))
    assert printed_forms(path.read_text()) <= ALLOWED.get(path.name, set())


@pytest.mark.parametrize(
    "code",
    [
        "digest(str(params))",
        "digest(repr(params))",
        "sorted(params, key=repr)",
        "digest(*map(str, params))",
        'digest(f"{params}")',
        "digest(id(array))",
        'digest("{}".format(params))',
        "digest(value.__repr__())",
    ],
)
def test_a_printed_form_is_noticed(code):
    assert printed_forms(code)
    assert not printed_forms('isinstance(value, str)\nraise PortError(f"{params} is wrong")')
