"""Two models of more than twelve layers in Haiku and NNX, as source, and faults that porters make in it."""

from dataclasses import dataclass
from typing import Any

DECODER = """
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
        *(kind(f"blocks.{n}.{name}", haiku=f"b{n}_{name}", nnx=f"blocks.{n}.{name}")
          for n in range(DEPTH) for name, kind in KINDS.items()),
        layer_norm("norm", haiku="norm", nnx="norm"),
        linear("head", haiku="head", nnx="head"),
    ),
    steps=1,
)
"""
"""A language model of 28 layers; a fault in `Faulty` is in the second of three blocks alone."""

RECURRENT = """
import jax
import jax.numpy as jnp
from equiv.case import Case
from equiv.layers import layer_norm, linear

DEPTH, WIDTH = 4, 6

def haiku():
    import haiku as hk

    def forward(x):
        for n in range(DEPTH):
            y = hk.Linear(2 * WIDTH, name=f"b{n}_up")(x)
            y = jax.nn.relu(y)
            y = hk.Linear(WIDTH, name=f"b{n}_down")(y)
            x = hk.LayerNorm(-1, True, True, eps=1e-6, name=f"b{n}_norm")(x + y)
        gate, fresh = hk.Linear(WIDTH, name="gate"), hk.Linear(WIDTH, name="fresh")
        back = hk.Linear(WIDTH, name="back")

        def step(h, row):
            z = jax.nn.sigmoid(gate(row) + 1.0)
            new = jnp.tanh(fresh(row) + back(h))
            h = z * h + (1 - z) * new
            return h, h

        _, x = hk.scan(step, jnp.zeros((x.shape[0], WIDTH)), x.swapaxes(0, 1))
        x = x.swapaxes(0, 1).mean(axis=1)
        return jax.nn.log_softmax(hk.Linear(5, name="head")(x), axis=-1)

    return hk.without_apply_rng(hk.transform(forward))

def nnx(rngs):
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6, rngs=rngs)

        def __call__(self, x):
            y = self.up(x)
            y = jax.nn.relu(y)
            y = self.down(y)
            return self.norm(x + y)

    class Faulty(Block):
        pass

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([kind(rngs) for kind in (Block, Block, Faulty, Block)])
            self.gate, self.fresh, self.back = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(3))
            self.head = nnx.Linear(WIDTH, 5, rngs=rngs)

        def step(self, h, row):
            z = self.gate(row)
            z = jax.nn.sigmoid(z + 1.0)
            new = self.fresh(row) + self.back(h)
            new = jnp.tanh(new)
            h = z * h + (1 - z) * new
            return h, h

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            start = jnp.zeros((x.shape[0], WIDTH))
            x = x.swapaxes(0, 1)
            _, x = jax.lax.scan(self.step, start, x)
            x = x.swapaxes(0, 1).mean(axis=1)
            x = self.head(x)
            return jax.nn.log_softmax(x, axis=-1)

    return Model(rngs)

CASE = Case(
    guide="none",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[3,7,6]"},
    layers=(
        *(kind(f"blocks.{n}.{name}", haiku=f"b{n}_{name}", nnx=f"blocks.{n}.{name}")
          for n in range(DEPTH) for name, kind in {"up": linear, "down": linear, "norm": layer_norm}.items()),
        *(linear(name, haiku=name, nnx=name) for name in ("gate", "fresh", "back", "head")),
    ),
    steps=1,
)
"""
"""Four residual blocks and a recurrent layer: 16 layers."""

MODELS = {"decoder": DECODER, "recurrent": RECURRENT}


@dataclass(frozen=True)
class SourceFault:
    """One fault in the NNX builder of a model.

    Attributes:
        name: of the fault.
        model: which one.
        old: a line of it, or a part of one.
        new: what stands there instead.
        layers: canonical layers of which one has to be named first.
        cause: a pattern of a right tried cause.
        held_out: written before anything was tuned, and not looked at while it was.
        line: a part of the line to be named where that is not `new`, as the call of a layer that is made elsewhere.
    """

    name: str
    model: str
    old: str
    new: str
    layers: tuple[str, ...]
    cause: str
    held_out: bool = False
    line: str = ""


def in_block(name: str, old: str, new: str, layers: str, cause: str, **more: Any) -> SourceFault:
    """A fault in the second block of the decoder alone."""
    places = tuple(f"blocks.1.{layer}" for layer in layers.split())
    return SourceFault(name, "decoder", old, new, places, cause, **more)


def in_recurrent(name: str, old: str, new: str, layers: str, cause: str, **more: Any) -> SourceFault:
    """A fault in the recurrent model; in a block: in the third."""
    return SourceFault(name, "recurrent", old, new, tuple(layers.split()), cause, **more)


FAULTS = (
    in_block("eps", "self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5", "self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-3",
             "norm2", "epsilon 1e-05 in place of 0.001", line="self.norm2(x)"),
    in_block("gelu exact", "y = jax.nn.gelu(y)", "y = jax.nn.gelu(y, approximate=False)", "up down",
             r"gelu \(tanh approximation\) in place of gelu"),
    in_block("relu", "y = jax.nn.gelu(y)", "y = jax.nn.relu(y)", "up down", r"gelu \(tanh.* in place of relu"),
    in_block("no activation", "y = jax.nn.gelu(y)", "y = y * 1.0", "up down", r"gelu .*leaves out"),
    in_block("no residual", "x = x + y", "x = y", "out norm2", "residual sum .*leaves out"),
    in_block("residual of the norm", "x = x + y\n            y = self.norm2(x)", "y = self.norm2(x + y)",
             "out norm2 down", "residual|sum", held_out=True),
    in_block("scale", "scores = scores * (WIDTH // HEADS) ** -0.5", "scores = scores * WIDTH ** -0.5", "q k v out",
             "factor 0.5 in place of 0.353"),
    in_block("no scale", "scores = scores * (WIDTH // HEADS) ** -0.5", "scores = scores * 1.0", "q k v out",
             "mul with 0.5 that nnx leaves out"),
    in_block("softmax axis", "axis=-1)", "axis=-2)", "q k v out",
             "softmax over axis 3 in place of softmax over axis 2"),
    in_block("mask value", "scores, -1e9)", "scores, -1.0)", "q k v out", "mask -1e\\+09 in place of -1"),
    in_block("q and k", "q = self.q(y)\n            k = self.k(y)", "q = self.k(y)\n            k = self.q(y)", "q k",
             "`blocks.1.[qk]` (and `blocks.1.[qk]` exchanged|in place of `blocks.1.[qk]`)", held_out=True),
    in_block("v for k", "v = self.v(y)", "v = self.k(y)", "v k out", "`blocks.1.v` in place of `blocks.1.k`"),
    in_block("gelu twice", "y = jax.nn.gelu(y)", "y = jax.nn.gelu(jax.nn.gelu(y))", "up down", "no gelu",
             held_out=True),
    in_block("norm left out", "y = self.norm2(x)", "y = x", "norm2 up", "norm", held_out=True),
    in_block("mask off by one", "jnp.tri(q.shape[1], dtype=bool)", "jnp.tri(q.shape[1], k=1, dtype=bool)", "q k v out",
             "tri|iota|offset|constant|no add with 1", held_out=True),
    in_block("tanh", "y = jax.nn.gelu(y)", "y = jnp.tanh(y)", "up down", r"gelu .* in place of tanh", held_out=True),
    in_block("factor after", "y = self.out(y)", "y = 0.5 * self.out(y)", "out", "no mul with 0.5", held_out=True),
    SourceFault("blocks exchanged", "decoder", "for block in self.blocks:",
                "for block in (self.blocks[n] for n in (1, 0, 2)):",
                ("blocks.0.norm1", "blocks.1.norm1"), "`blocks.[01]` (and|in place of) `blocks.[01]`"),
    SourceFault("positions", "decoder", "places = jnp.arange(words.shape[1])",
                "places = jnp.arange(words.shape[1]) + 1",
                ("places", "words"), "no add with 1", line="+ 1"),
    in_recurrent("carry", "start = jnp.zeros(", "start = jnp.ones(", "gate fresh back blocks.3.norm",
                 "initial carry of 0 in place of 1"),
    in_recurrent("direction", "jax.lax.scan(self.step, start, x)", "jax.lax.scan(self.step, start, x, reverse=True)",
                 "gate fresh back", "other direction"),
    in_recurrent("forget bias", "sigmoid(z + 1.0)", "sigmoid(z + 0.0)", "gate", "add with 1 that nnx leaves out"),
    in_recurrent("no forget bias", "sigmoid(z + 1.0)", "sigmoid(z)", "gate", "add with 1 .*leaves out"),
    in_recurrent("gate swapped", "h = z * h + (1 - z) * new", "h = (1 - z) * h + z * new", "gate fresh back", "z|sub",
                 held_out=True),
    in_recurrent("relu in the loop", "new = jnp.tanh(new)", "new = jax.nn.relu(new)", "fresh back",
                 "tanh in place of relu", held_out=True),
    in_recurrent("eps", "self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6",
                 "self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5",
                 "blocks.2.norm", "epsilon 1e-06 in place of 1e-05", line="self.norm(x + y)"),
    in_recurrent("leaky", "y = jax.nn.relu(y)", "y = jax.nn.leaky_relu(y)", "blocks.2.up blocks.2.down",
                 "relu in place of leaky_relu"),
    in_recurrent("post norm", "return self.norm(x + y)", "return x + self.norm(y)", "blocks.2.norm blocks.2.down",
                 "residual", held_out=True),
    in_recurrent("sum for mean", "x.swapaxes(0, 1).mean(axis=1)", "x.swapaxes(0, 1).sum(axis=1)",
                 "head gate fresh back", "div with 7 .*leaves out"),
    in_recurrent("softmax for log", "return jax.nn.log_softmax(x, axis=-1)", "return jax.nn.softmax(x, axis=-1)",
                 "head",
                 "log_softmax over axis 1 in place of softmax", held_out=True),
    in_recurrent("head of another axis", "return jax.nn.log_softmax(x, axis=-1)",
                 "return jax.nn.log_softmax(x, axis=0)",
                 "head", "log_softmax over axis 1 in place of log_softmax over axis 0"),
    in_recurrent("fresh for back", "self.fresh(row) + self.back(h)", "self.fresh(row) + self.fresh(h)", "back fresh",
                 "`back` in place of `fresh`", held_out=True),
)  # fmt: skip
"""Each is one line; a further one needs nothing else."""


def faulty_source(fault: SourceFault) -> str:
    """The source of a model with a fault: in its faulty block, else wherever the old text is in the NNX builder."""
    source = MODELS[fault.model]
    head, builder, body = source.partition("def nnx")
    block, faulty, rest = body.partition("    class Faulty(Block):\n        pass\n")
    if fault.old in block:
        changed = (
            block[block.index("    class Block") :]
            .replace("class Block", "class Faulty")
            .replace(fault.old, fault.new, 1)
        )
        return head + builder + block + changed + rest
    if fault.old not in rest:
        raise ValueError(f"{fault.name}: {fault.old!r} is not in the NNX builder of {fault.model}")
    return head + builder + block + faulty + rest.replace(fault.old, fault.new, 1)
