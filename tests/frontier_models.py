"""Decoders of the sizes of frontier models, in Linen and NNX: shapes alone, as nothing of them fits in a memory.

The blocks are one scanned body, or written out. Loops, remat, norms, layers and the making of parameters are those of
each library; what neither brings, rotary positions and attention in groups of heads, is one function for both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from equiv.case import Case, Layer
from equiv.layers import embed, linear, module, rms_norm


@dataclass(frozen=True)
class Size:
    """How large a decoder is.

    Attributes:
        layers: number of blocks.
        width: features of the residual stream.
        heads: query heads; `kv_heads` of keys and values.
        inner: features between the two products of the feed-forward layer.
        words: size of the vocabulary.
        experts: feed-forward layers of which each position goes through `chosen`; 0: one, for all.
        length: positions of the batch.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    words: int
    experts: int = 0
    chosen: int = 0
    length: int = 4096

    @property
    def head_size(self) -> int:
        return self.width // self.heads


SIZES = {
    # Llama 3 405B (arXiv 2407.21783, table 3).
    "dense_405b": Size(126, 16384, 128, 8, 53248, 128256),
    # Layers, width, experts and their size of DeepSeek-V3 (arXiv 2412.19437, section 4.2); plain attention.
    "experts_61": Size(61, 7168, 128, 128, 2048, 129280, experts=256, chosen=8),
}


def rotate(x):
    """Rotary positions on (batch, position, head, feature)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None, None] * 500000.0 ** (-jnp.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    turned = first * jnp.cos(angles) - second * jnp.sin(angles), second * jnp.cos(angles) + first * jnp.sin(angles)
    return jnp.concatenate(turned, axis=-1)


def causal(length):
    """Which position may see which."""
    return jnp.tril(jnp.ones((length, length), bool))


def attend(q, k, v):
    """Attention of (batch, position, head, feature); several query heads share a key and a value."""
    groups = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[-1])
    logits = jnp.einsum("bqgnd,bkgd->bgnqk", groups, k) / jnp.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(causal(q.shape[1]), logits, jnp.finfo(logits.dtype).min))
    return jnp.einsum("bgnqk,bkgd->bqgnd", weights, v).reshape(*q.shape[:2], -1)


def choose(logits, chosen):
    """The weight of each expert, zero but for the chosen ones of the largest logits."""
    values, places = jax.lax.top_k(logits, chosen)
    weights = jax.nn.softmax(values)
    return jnp.sum(weights[..., None] * jax.nn.one_hot(places, logits.shape[-1]), axis=-2)


class LinenBlock(nn.Module):
    """A block of the decoder: attention and a gated feed-forward layer, each after a norm."""

    size: Size

    @nn.compact
    def __call__(self, x, _):
        size, dense = self.size, partial(nn.Dense, use_bias=False)
        y = nn.RMSNorm(epsilon=1e-5, name="norm_1")(x)
        widths = {"query": size.heads, "key": size.kv_heads, "value": size.kv_heads}
        q, k, v = (
            dense(heads * size.head_size, name=name)(y).reshape(*y.shape[:2], heads, size.head_size)
            for name, heads in widths.items()
        )
        x = x + dense(size.width, name="out")(attend(rotate(q), rotate(k), v))
        y = nn.RMSNorm(epsilon=1e-5, name="norm_2")(x)
        return x + (self.experts(y) if size.experts else self.feed_forward(y)), None

    def feed_forward(self, y):
        dense = partial(nn.Dense, use_bias=False)
        inner = jax.nn.silu(dense(self.size.inner, name="gate")(y)) * dense(self.size.inner, name="up")(y)
        return dense(self.size.width, name="down")(inner)

    def experts(self, y):
        size, initial = self.size, nn.initializers.lecun_normal()
        up = [self.param(name, initial, (size.experts, size.width, size.inner)) for name in ("gate", "up")]
        down = self.param("down", initial, (size.experts, size.inner, size.width))
        weights = choose(nn.Dense(size.experts, use_bias=False, name="router")(y), size.chosen)
        gate, values = (jnp.einsum("bld,edf->blef", y, kernel) for kernel in up)
        return jnp.einsum("blef,efd,ble->bld", jax.nn.silu(gate) * values, down, weights)


class LinenDecoder(nn.Module):
    """The decoder in Linen."""

    size: Size
    scanned: bool

    @nn.compact
    def __call__(self, words):
        x = nn.Embed(self.size.words, self.size.width, name="words")(words)
        block = nn.remat(LinenBlock)
        if self.scanned:
            body = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.size.layers)
            x, _ = body(self.size, name="blocks")(x, None)
        else:
            for index in range(self.size.layers):
                x, _ = block(self.size, name=f"blocks_{index}")(x, None)
        x = nn.RMSNorm(epsilon=1e-5, name="norm")(x)
        return nn.Dense(self.size.words, use_bias=False, name="head")(x)


class NnxExperts(nnx.Module):
    """Feed-forward layers of which each position goes through some."""

    def __init__(self, size, rngs):
        def kernel(*shape):
            return nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))

        self.chosen = size.chosen
        self.router = nnx.Linear(size.width, size.experts, use_bias=False, rngs=rngs)
        self.gate = kernel(size.experts, size.width, size.inner)
        self.up = kernel(size.experts, size.width, size.inner)
        self.down = kernel(size.experts, size.inner, size.width)

    def __call__(self, y):
        weights = choose(self.router(y), self.chosen)
        gate, values = (jnp.einsum("bld,edf->blef", y, kernel[...]) for kernel in (self.gate, self.up))
        return jnp.einsum("blef,efd,ble->bld", jax.nn.silu(gate) * values, self.down[...], weights)


class NnxFeedForward(nnx.Module):
    """A gated feed-forward layer."""

    def __init__(self, size, rngs):
        dense = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.gate, self.up = dense(size.width, size.inner), dense(size.width, size.inner)
        self.down = dense(size.inner, size.width)

    def __call__(self, y):
        return self.down(jax.nn.silu(self.gate(y)) * self.up(y))


class NnxBlock(nnx.Module):
    """The block in NNX."""

    def __init__(self, size, rngs):
        dense = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.size = size
        self.norm_1, self.norm_2 = (nnx.RMSNorm(size.width, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.query = dense(size.width, size.width)
        self.key, self.value = (dense(size.width, size.kv_heads * size.head_size) for _ in range(2))
        self.out = dense(size.width, size.width)
        self.feed = NnxExperts(size, rngs) if size.experts else NnxFeedForward(size, rngs)

    def __call__(self, x):
        y = self.norm_1(x)
        q, k, v = (
            one.reshape(*y.shape[:2], -1, self.size.head_size) for one in (self.query(y), self.key(y), self.value(y))
        )
        x = x + self.out(attend(rotate(q), rotate(k), v))
        return x + self.feed(self.norm_2(x))


class NnxDecoder(nnx.Module):
    """The decoder in NNX."""

    def __init__(self, size, scanned, rngs):
        @nnx.split_rngs(splits=size.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs):
            return NnxBlock(size, rngs)

        self.scanned, self.words = scanned, nnx.Embed(size.words, size.width, rngs=rngs)
        self.blocks = create(rngs) if scanned else nnx.List([NnxBlock(size, rngs) for _ in range(size.layers)])
        self.norm = nnx.RMSNorm(size.width, epsilon=1e-5, rngs=rngs)
        self.head = nnx.Linear(size.width, size.words, use_bias=False, rngs=rngs)

    def __call__(self, words):
        @nnx.remat
        def forward(x, block):
            return block(x)

        x = self.words(words)
        if self.scanned:
            x = nnx.scan(forward, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.blocks)
        else:
            for block in self.blocks:
                x = forward(x, block)
        return self.head(self.norm(x))


def words_loss(outputs, batch):
    """Cross entropy with the next word."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], batch["words"][:, 1:]).mean()


def block_rows(size: Size, path: str, linen: str, nnx: str) -> Iterator[Layer]:
    """The layer table of a block, or of a stack of all."""
    for name in ("norm_1", "norm_2"):
        yield rms_norm(f"{path}.{name}", linen=f"{linen}/{name}", nnx=f"{nnx}.{name}")
    for name in ("query", "key", "value", "out"):
        yield linear(f"{path}.{name}", linen=f"{linen}/{name}", nnx=f"{nnx}.{name}")
    if size.experts:
        yield module(f"{path}.experts", "gate", "up", "down", linen=linen, nnx=f"{nnx}.feed")
    for name in ("router",) if size.experts else ("gate", "up", "down"):
        yield linear(f"{path}.{name}", linen=f"{linen}/{name}", nnx=f"{nnx}.feed.{name}")


def decoder(size: Size, scanned: bool = True) -> Case:
    """The case of a decoder of this size, with its training by AdamW; its blocks are a loop, or written out."""
    every = range(0 if scanned else size.layers)
    return Case(
        guide="none: a decoder",
        models={"linen": partial(LinenDecoder, size, scanned), "nnx": partial(NnxDecoder, size, scanned)},
        batch={"words": f"int32[4,{size.length}]:{size.words}"},
        layers=(
            embed("words", linen="words", nnx="words"),
            rms_norm("norm", linen="norm", nnx="norm"),
            linear("head", linen="head", nnx="head"),
            *(block_rows(size, "blocks", "blocks", "blocks") if scanned else ()),
            *(row for n in every for row in block_rows(size, f"blocks.{n}", f"blocks_{n}", f"blocks.{n}")),
        ),
        loss=words_loss,
        optimizer=lambda: optax.adamw(1e-4),
    )
