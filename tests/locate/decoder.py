"""A language model of 28 layers in Haiku and NNX; `Faulty` is the second of three blocks."""

import jax
import jax.numpy as jnp

from equiv.case import Case
from equiv.layers import embed, layer_norm, linear

DEPTH, WIDTH, HEADS, WORDS, LENGTH = 3, 8, 2, 11, 8


def attend(q, k, v):
    q, k, v = (part.reshape(*part.shape[:2], HEADS, WIDTH // HEADS) for part in (q, k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (WIDTH // HEADS) ** -0.5
    scores = jnp.where(jnp.tri(q.shape[1], dtype=bool), scores, -1e9)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*q.shape[:2], WIDTH)


def haiku():
    import haiku as hk

    def forward(words):
        x = hk.Embed(WORDS, WIDTH, name="words")(words)
        x = x + hk.Embed(LENGTH, WIDTH, name="places")(jnp.arange(words.shape[1]))
        for n in range(DEPTH):
            y = hk.LayerNorm(-1, True, True, eps=1e-5, name=f"b{n}_norm1")(x)
            q, k, v = (hk.Linear(WIDTH, name=f"b{n}_{name}")(y) for name in "qkv")
            x = x + hk.Linear(WIDTH, name=f"b{n}_out")(attend(q, k, v))
            y = hk.LayerNorm(-1, True, True, eps=1e-5, name=f"b{n}_norm2")(x)
            y = jax.nn.gelu(hk.Linear(2 * WIDTH, name=f"b{n}_up")(y))
            x = x + hk.Linear(WIDTH, name=f"b{n}_down")(y)
        x = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)
        return hk.Linear(WORDS, name="head")(x)

    return hk.without_apply_rng(hk.transform(forward))


def nnx(rngs):
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, number, rngs):
            self.number = number
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.q, self.k, self.v, self.out = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
            self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

        def attend(self, q, k, v):
            q, k, v = (part.reshape(*part.shape[:2], HEADS, WIDTH // HEADS) for part in (q, k, v))
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
            scores = scores * (WIDTH // HEADS) ** -0.5
            scores = jnp.where(jnp.tri(q.shape[1], dtype=bool), scores, -1e9)
            weights = jax.nn.softmax(scores, axis=-1)
            return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(*q.shape[:2], WIDTH)

        def __call__(self, x):
            y = self.norm1(x)
            q = self.q(y)
            k = self.k(y)
            v = self.v(y)
            y = self.attend(q, k, v)
            y = self.out(y)
            x = x + y
            y = self.norm2(x)
            y = self.up(y)
            y = jax.nn.gelu(y)
            y = self.down(y)
            return x + y

    class Faulty(Block):
        pass

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.words, self.places = nnx.Embed(WORDS, WIDTH, rngs=rngs), nnx.Embed(LENGTH, WIDTH, rngs=rngs)
            kinds = [Block, Faulty, Block]
            self.blocks = nnx.List([kind(n, rngs) for n, kind in enumerate(kinds)])
            self.norm, self.head = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs), nnx.Linear(WIDTH, WORDS, rngs=rngs)

        def __call__(self, words):
            places = jnp.arange(words.shape[1])
            x = self.words(words)
            x = x + self.places(places)
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return self.head(x)

    return Model(rngs)


KINDS = {"norm1": layer_norm, "norm2": layer_norm} | dict.fromkeys(["q", "k", "v", "out", "up", "down"], linear)
CASE = Case(
    guide="none",
    models={"haiku": haiku, "nnx": nnx},
    batch={"words": "int32[3,6]:11"},
    layers=(
        embed("words", haiku="words", nnx="words"),
        embed("places", haiku="places", nnx="places"),
        *(
            kind(f"blocks.{n}.{name}", haiku=f"b{n}_{name}", nnx=f"blocks.{n}.{name}")
            for n in range(DEPTH)
            for name, kind in KINDS.items()
        ),
        layer_norm("norm", haiku="norm", nnx="norm"),
        linear("head", haiku="head", nnx="head"),
    ),
    steps=1,
)
