"""Whose a builder is: its argument says it, or what it returns; no name of a port does, except that of a library."""

from functools import partial

import flax.linen as nn
import haiku as hk
import pytest
from flax import nnx

from equiv.backends import identify
from equiv.backends.build import identify_library
from equiv.backends.identify import library_of
from equiv.backends.registry import all_libraries, load_library
from equiv.errors import CaseError, NotRun, PortError


def transformed():
    return hk.transform(lambda x: hk.Linear(2)(x))


def never(rngs):
    raise AssertionError("a builder that takes rngs is not called to see what it returns")


def raising():
    raise ValueError("no weights")


def missing():
    raise ModuleNotFoundError("No module named 'old_library'", name="old_library")


class Own(nnx.Module):
    """An NNX model whose argument its metaclass hides."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)


@pytest.mark.parametrize(
    ("builder", "library"),
    [
        (transformed, "haiku"),
        (lambda: (transformed(), lambda params: params), "haiku"),
        (lambda: nn.Dense(2), "linen"),
        (lambda: nnx.bridge.ToLinen(nnx.Linear, args=(3, 2)), "linen"),
        (partial(lambda width: nn.Dense(width), 2), "linen"),
        (never, "nnx"),
        (lambda key: never(key), "nnx"),
        (lambda r: never(r), "nnx"),
        (Own, "nnx"),
    ],
)
def test_the_library_is_what_a_builder_returns_or_takes(builder, library):
    assert identify_library("old", builder).name == library
    assert identify_library(library, builder).name == library


@pytest.mark.parametrize(
    ("port", "builder", "error", "message"),
    [
        (
            "haiku",
            lambda: nn.Dense(2),
            CaseError,
            r"haiku: the builder is one of linen\. Rename the key .* 'linen', or",
        ),
        ("linen", never, CaseError, r"linen: the builder is one of nnx\. Rename the key in the case's models: 'nnx'"),
        ("old", lambda: 3, CaseError, r"old: the builder returned int, .* no model of a known library\. Give a func"),
        (
            "old",
            lambda: Own(nnx.Rngs(0)),
            CaseError,
            r"old: the builder takes no argument .*share\. Make it a",
        ),
        ("old", raising, PortError, r"old: building the model raised ValueError: no weights\. Fix .*test_identify"),
        ("old", missing, NotRun, r"old: building the model needs old_library, which is not installed here"),
    ],
)
def test_a_useless_builder_is_an_error_naming_its_port(port, builder, error, message):
    with pytest.raises(error, match=message):
        identify_library(port, builder)


def test_libraries_with_one_argument_are_told_by_the_name(monkeypatch):
    """Another library with builders of rngs: the port has to be named after one of the two."""
    second = load_library("nnx").__class__(**{**vars(load_library("nnx")), "name": "nnx2"})
    known = (*all_libraries(), second)
    monkeypatch.setattr(identify, "all_libraries", lambda: known)
    with pytest.raises(CaseError, match=r"old: builders of nnx and nnx2 take the same argument.*e\.g\. 'nnx'\."):
        identify.library_by_arguments("old", never)
    assert identify.library_by_arguments("nnx2", never) == second


def test_the_most_derived_class_decides(monkeypatch):
    """A library's classes may derive from another one's, as those of a wrapper of Linen do."""
    base = load_library("linen")
    wrapper = base.__class__(**{**vars(base), "name": "wrapper", "modules": (__name__,)})
    monkeypatch.setattr(identify, "all_libraries", lambda: (base, wrapper))

    class Wrapped(nn.Module):
        pass

    assert library_of(Wrapped()) == wrapper
    assert library_of(nn.Dense(2)) == base
    assert library_of(3) is None
