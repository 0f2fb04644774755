"""Content of parameters, and symbols of objects that have none."""

import collections
import functools
import os

import jax
import numpy as np
import pytest
from jax.extend.core import Primitive, primitives

from equiv.programs.content import ContentReader, digest, encode
from equiv.programs.identity import fresh_symbol, name_object
from equiv.programs.primitives import is_jax_primitive

read = ContentReader().read


class Thing:
    """An object about which there is no rule."""


class Row(collections.namedtuple("Row", ("one", "other"))):
    """A named tuple that may keep more than its fields."""


def test_an_object_keeps_its_symbol_as_long_as_it_lives():
    one, other = Thing(), Thing()
    assert name_object(one) == name_object(one) != name_object(other)


def test_an_object_at_a_reused_address_has_another_symbol():
    seen = set()
    for _ in range(100):
        thing = Thing()
        seen.add((id(thing), name_object(thing)))
        del thing  # frees it at once: nothing refers to it in a circle
    addresses, symbols = (set(column) for column in zip(*seen, strict=True))
    assert len(addresses) < len(symbols) == 100


def test_an_object_without_weak_references_is_kept_alive():
    symbols = {name_object(object()) for _ in range(100)}
    assert len(symbols) == 100


def test_a_fork_has_symbols_of_its_own(monkeypatch):
    thing = Thing()
    before = name_object(thing), fresh_symbol()[0]
    number = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: number + 1)
    assert name_object(thing) != before[0]


def test_a_fresh_symbol_is_new_each_time():
    assert fresh_symbol() != fresh_symbol()


@pytest.mark.parametrize("value", [object(), np.zeros(3), 2**70], ids=["object", "array", "integer"])
def test_only_plain_data_is_hashed(value):
    with pytest.raises((TypeError, OverflowError), match=r"no plain data|serialize"):
        digest(value)


def test_parts_that_are_joined_elsewhere_have_another_hash():
    assert digest("a", "bc") != digest("ab", "c") != digest("abc")
    assert digest(("a",), "b") != digest("a", ("b",))
    assert len({digest(one) for one in (None, False, 0, 0.0, -0.0, "", b"")}) == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(6).reshape(2, 3).copy(order="F"),
        lambda: np.array([1, None, "text"], object),
        lambda: jax.numpy.arange(3),
        lambda: jax.random.key(3),
        lambda: np.dtype("float32"),
        lambda: jax.numpy.bfloat16,
        lambda: np.float32,
        lambda: functools.partial(Thing, 1, two=[2]),
        lambda: {"a": slice(1, None), "b": range(3), "c": 1j, "d": ...},
        lambda: {"one", "two", "three"},
        lambda: Row(1, 2),
        lambda: jax.sharding.PartitionSpec("d", None),
        lambda: jax.sharding.NamedSharding(jax.make_mesh((1,), ("d",)), jax.sharding.PartitionSpec("d")),
        lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        lambda: jax.sharding.AbstractMesh((1,), ("d",)),
        lambda: jax.tree.structure({"a": (1, None, [2])}),
        lambda: jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, r: (c + r, c), x[0], x))(np.ones((3, 2))),
    ],
)
def test_what_is_made_twice_has_one_content(make):
    assert encode(read(make())) == encode(read(make()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
        (np.float32(1), np.float64(1)),
        (np.float32(1), 1.0),
        (np.array([1, None], object), np.array([1, "None"], object)),
        (jax.random.key(1), jax.random.key(2)),
        (jax.random.key(1), jax.random.key(1, impl="rbg")),
        (np.dtype("float32"), np.dtype(">f4")),
        (np.dtype([("a", "f4")]), np.dtype([("b", "f4")])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (functools.partial(Thing, 1), functools.partial(Thing, one=1)),
        (jax.tree.structure((1, None)), jax.tree.structure((None, 1))),
        (jax.sharding.PartitionSpec("d", None), jax.sharding.PartitionSpec(None, "d")),
        (jax.sharding.AbstractMesh((1,), ("d",)), jax.sharding.AbstractMesh((2,), ("d",))),
        (np.ma.masked_array([1], [0]), np.ma.masked_array([1], [1])),
    ],
)
def test_what_differs_has_another_content(one, other):
    assert encode(read(one)) != encode(read(other))


def test_a_named_tuple_with_more_than_its_fields_is_itself():
    one, other = Row(1, 2), Row(1, 2)
    one.hidden = other.hidden = 3
    assert read(one) != read(other)


def test_a_container_in_itself_is_only_itself():
    one, other = [1], [1]
    one.append(one)
    other.append(other)
    reader = ContentReader()
    assert reader.read_parameters({"x": one}) == reader.read_parameters({"x": one})
    assert reader.read_parameters({"x": one}) != reader.read_parameters({"x": other})


def test_jaxs_primitives_are_known_and_others_are_not():
    own = [value for value in vars(primitives).values() if isinstance(value, Primitive)]
    assert len(own) > 100
    assert all(map(is_jax_primitive, own))
    assert not is_jax_primitive(Primitive("add"))


def test_variables_of_a_jaxpr_have_no_names():
    def one(x, y):
        return x * y + 1

    def other(y, x):
        first = x
        return y * first + 1

    given = (np.ones(3), np.ones(3))
    assert read(jax.make_jaxpr(one)(*given)) == read(jax.make_jaxpr(other)(*given))
    assert read(jax.make_jaxpr(one)(*given)) != read(jax.make_jaxpr(lambda x, y: y * x + 1)(*given))
