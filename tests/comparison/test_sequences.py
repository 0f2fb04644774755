"""Calls one after the other: a decoder with a cache, token by token and at once, in three libraries."""

import sys

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.backends.build import build_port, port_spec
from equiv.case import CallSequence, Case
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.errors import CaseError, EquivError
from equiv.layers import attention, embed, linear, state

LENGTH, WIDTH, WORDS = 3, 4, 11


def attend(query, keys, values, index, offset=0):
    """Attention of the next positions on all up to each."""
    positions = index + jnp.arange(query.shape[1])[:, None] + offset
    allowed = jnp.arange(LENGTH)[None, :] <= positions
    scores = jnp.einsum("bqd,bkd->bqk", query, keys) / jnp.sqrt(WIDTH)
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(jnp.where(allowed, scores, -1e30)), values)


def decode(tokens, embed, project, cache, offset=0, moved=0):
    """The outputs of the next tokens, and the cache with them."""
    keys, values, index = cache
    new_keys, new_values, query = jnp.split(project(embed(tokens)), 3, -1)
    place = (0, index + moved, 0)
    keys = jax.lax.dynamic_update_slice(keys, new_keys, place)
    values = jax.lax.dynamic_update_slice(values, new_values, place)
    return attend(query, keys, values, index, offset), (keys, values, index + tokens.shape[1])


def fresh():
    return jnp.zeros((2, LENGTH, WIDTH)), jnp.zeros((2, LENGTH, WIDTH)), jnp.zeros((), "int32")


NAMES = ("keys", "values", "index")


def haiku():
    def forward(tokens):
        cache = [
            hk.get_state(name, one.shape, one.dtype, init=jnp.zeros) for name, one in zip(NAMES, fresh(), strict=True)
        ]
        embed, project = hk.Embed(WORDS, WIDTH, name="embed"), hk.Linear(3 * WIDTH, name="project")
        outputs, after = decode(tokens, embed, project, cache)
        for name, one in zip(NAMES, after, strict=True):
            hk.set_state(name, one)
        return outputs

    return hk.transform_with_state(forward)


class Linen(nn.Module):
    offset: int = 0
    moved: int = 0

    @nn.compact
    def __call__(self, tokens):
        cache = [self.variable("cache", name, lambda one=one: one) for name, one in zip(NAMES, fresh(), strict=True)]
        embed, project = nn.Embed(WORDS, WIDTH, name="embed"), nn.Dense(3 * WIDTH, name="project")
        outputs, after = decode(tokens, embed, project, [one.value for one in cache], self.offset, self.moved)
        if not self.is_initializing():
            for variable, one in zip(cache, after, strict=True):
                variable.value = one
        return outputs


class Nnx(nnx.Module):
    stuck = False

    def __init__(self, rngs):
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.project = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.keys, self.values, self.index = map(nnx.Cache, fresh())

    def __call__(self, tokens):
        cache = self.keys[...], self.values[...], self.index[...]
        outputs, after = decode(tokens, self.embed, self.project, cache)
        self.keys[...], self.values[...] = after[:2]
        self.index[...] = cache[2] if self.stuck else after[2]
        return outputs


class Stuck(Nnx):
    stuck = True


LAYERS = (
    embed("embed", haiku="embed", linen="embed", nnx="embed"),
    linear("project", haiku="project", linen="project", nnx="project"),
    *(state(name, haiku=f"~/{name}", linen=f"cache/{name}", nnx=name) for name in NAMES),
)


def by_step(length):
    return tuple(f"__call__(tokens[:, {index}:{index + 1}])" for index in range(length))


STEPS = by_step(LENGTH)
PREFILL = ("__call__(tokens[:, :2])", "__call__(tokens[:, 2:])")
FORWARD = ("outputs", "state")
MODELS = {"haiku": haiku, "linen": Linen, "nnx": Nnx}


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def judge(sequence, checks=None, **models):
    batch = {"tokens": f"int32[2,{LENGTH}]:{WORDS}"}
    case = Case("", models, batch, LAYERS, sequences={"decode": sequence}, checks=checks)
    return run_case(LoadedCase("decoder", "", case))


@pytest.mark.slow  # what is joined below is compared call by call here
def test_steps_with_a_cache_agree_in_three_libraries():
    result = judge(CallSequence(STEPS), **MODELS)
    assert {name: str(one) for name, one in result.verdicts.items()} == {"linen": "same", "nnx": "same"}
    assert result.scope.sequences == {"decode": STEPS}
    places = {one.place for check in result.checks if check.check == "state" for one in check.findings}
    assert "call decode: state after call 1, index" in places


def test_tokens_at_once_agree_with_steps():
    calls = {"haiku": ("__call__(tokens)",), "linen": STEPS, "nnx": PREFILL}
    result = judge(CallSequence(calls, join=1), just("outputs"), **MODELS)
    assert {name: str(one) for name, one in result.verdicts.items()} == {"linen": "same", "nnx": "same"}


@pytest.mark.slow
def test_sixteen_steps_equal_the_full_forward(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LENGTH", 16)
    calls = dict.fromkeys(MODELS, by_step(16)) | {"full": ("__call__(tokens)",)}
    faulty = {"index": Stuck, "mask": lambda: Linen(offset=1), "position": lambda: Linen(moved=1)}
    result = judge(CallSequence(calls | dict.fromkeys(faulty, by_step(16)), join=1), full=Linen, **MODELS, **faulty)
    assert {name: str(one) for name, one in result.verdicts.items()} == {
        **dict.fromkeys(MODELS, "same"),
        **dict.fromkeys(faulty, "different"),
    }


def refuted(result):
    return [str(one.place) for check in result.checks for one in check.findings if one.grade == "refuted"]


@pytest.mark.parametrize(
    ("faulty", "first"),
    [
        pytest.param(lambda: Linen(offset=1), "call decode: output/1", marks=pytest.mark.slow),
        pytest.param(lambda: Linen(moved=1), "call decode: output/1", marks=pytest.mark.slow),
        (Stuck, "call decode: output/2"),
    ],
)
def test_a_fault_of_the_cache_is_found_at_its_step(faulty, first):
    result = judge(CallSequence(STEPS), just("outputs"), haiku=haiku, new=faulty)
    assert str(result.verdicts["new"]) == "different"
    assert next(place for place in refuted(result) if "decode: output" in place) == first


class LinenAttention(nn.Module):
    """Flax's own cache, which is as long as what it is initialised with, and takes one position in a call."""

    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(2, decode=True, name="attention")(x, x)


class NnxAttention(nnx.Module):
    def __init__(self, rngs, length=LENGTH):
        self.attention = nnx.MultiHeadAttention(2, 4, decode=True, rngs=rngs)
        self.attention.init_cache((2, length, 4))

    def __call__(self, x):
        return self.attention(x)


def attention_case(**changed):
    given = {
        "models": {"linen": LinenAttention, "nnx": NnxAttention},
        "batch": {"x": f"float32[2,{LENGTH},4]"},
        "layers": (
            attention("attention", linen="attention", nnx="attention"),
            *(
                state(name, linen=f"cache/attention/{name}", nnx=f"attention.{name}")
                for name in ("cached_key", "cached_value", "cache_index")
            ),
        ),
        "methods": ("__call__(x[:, :1])",),
        "initial": "__call__(x)",
        "sequences": {"decode": CallSequence(tuple(f"__call__(x[:, {one}:{one + 1}])" for one in range(LENGTH)))},
    }
    return Case("", **{**given, **changed})


def test_a_cache_is_as_long_as_what_initialises_it():
    result = run_case(LoadedCase("attention", "", attention_case(checks=just(*FORWARD))))
    assert result.verdicts == {"nnx": "same"}
    shapes = {one.leaf: one.shape for one in result.leaves}
    assert shapes["cached_key"] == (2, LENGTH, 2, 2)


def test_a_table_with_a_scalar_of_state_is_inferred():
    given = {"batch": {"x": "float32[2,1,4]"}, "checks": just(*FORWARD)}
    (case,) = equiv.compare(LinenAttention, lambda rngs: NnxAttention(rngs, 1), **given).cases
    assert case.verdicts == {"nnx": "same"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"initial": "__call__("}, "initial '__call__\\(': cannot be read"),
        ({"sequences": {"__call__": CallSequence(STEPS)}}, "sequence __call__ has the name of a method"),
        ({"sequences": {"two": CallSequence(())}}, "sequence two: \\(\\) are no calls"),
        (
            {"sequences": {"two": CallSequence(("__call__(y)",))}},
            "__call__ of sequence two takes 'y', which is no input",
        ),
        (
            {"sequences": {"two": CallSequence(("__call__(x[:, 0.5])",))}},
            "sequence two: '__call__\\(x\\[:, 0.5\\]\\)': cannot be read: 0.5 is no index",
        ),
        (
            {"sequences": {"two": CallSequence({"linen": STEPS})}},
            "calls of their own, and their outputs are not joined",
        ),
        ({"sequences": {"two": CallSequence({"linen": STEPS}, join=1)}}, "no calls for nnx, only for linen"),
        ({"sequences": {"two": CallSequence(("late(x)",))}}, "has no method 'late'"),
    ],
)
def test_a_sequence_that_cannot_be_called_says_so(changed, message):
    batch = {"tokens": f"int32[2,{LENGTH}]:{WORDS}", "x": f"float32[2,{LENGTH},4]"}
    case = attention_case(batch=batch, **changed)
    with pytest.raises(CaseError, match=message):
        [build_port(case, port, port_spec(case)[0]) for port in case.models]


def test_outputs_that_cannot_be_joined_are_an_error():
    with pytest.raises(EquivError, match=r"sequence decode cannot be joined on axis 7: .* Give another axis"):
        judge(CallSequence(STEPS, join=7), linen=Linen, nnx=Nnx)
