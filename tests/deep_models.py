"""GPT, ViT and ResNet in Haiku, Linen and NNX, of layers that the libraries bring; as narrow as they can be.

The libraries differ in what they do by themselves: the form of the variance, where the scale of the attention is and
what a masked logit is, and, in `gpt_scanned`, a loop over the blocks in place of a list of them.
"""

from collections.abc import Callable, Iterator
from functools import partial

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from equiv.case import Case, Layer, zero_debias
from equiv.layers import attention, batch_norm, conv, embed, group_norm, layer_norm, linear, parameter

WIDTH, HEADS, WORDS, LENGTH, CLASSES = 8, 2, 11, 5, 3
ONE_PASS, TWO_PASS = {"epsilon": 1e-5}, {"epsilon": 1e-5, "use_fast_variance": False}
INITIAL = hk.initializers.VarianceScaling(1.0)


def haiku_block(x, name, mask=None):
    """A block of a transformer: attention and two dense layers, each after a norm and beside a residual."""
    attend = hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=INITIAL, model_size=WIDTH, name=f"{name}attention")
    y = hk.LayerNorm(-1, True, True, name=f"{name}norm_1")(x)
    x = x + attend(y, y, y, mask=mask)
    y = hk.LayerNorm(-1, True, True, name=f"{name}norm_2")(x)
    return x + hk.Linear(WIDTH, name=f"{name}down")(jax.nn.gelu(hk.Linear(2 * WIDTH, name=f"{name}up")(y)))


class LinenBlock(nn.Module):
    """The same in Linen."""

    @nn.compact
    def __call__(self, x, mask=None):
        y = nn.LayerNorm(**ONE_PASS, name="norm_1")(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS, qkv_features=WIDTH, name="attention")(y, y, mask=mask)
        y = nn.LayerNorm(**ONE_PASS, name="norm_2")(x)
        return x + nn.Dense(WIDTH, name="down")(jax.nn.gelu(nn.Dense(2 * WIDTH, name="up")(y)))


class LinenTurn(nn.Module):
    """The block as the body of a loop."""

    @nn.compact
    def __call__(self, x, mask):
        return LinenBlock(name="block")(x, mask), None


class NnxBlock(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.norm_1, self.norm_2 = (nnx.LayerNorm(WIDTH, **TWO_PASS, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x, mask=None):
        x = x + self.attention(self.norm_1(x), mask=mask)
        return x + self.down(jax.nn.gelu(self.up(self.norm_2(x))))


def block_rows(depth: int, places: Callable[[str, int], dict[str, str]]) -> Iterator[Layer]:
    """The layer table of the blocks of a transformer."""
    kinds = {"norm_1": layer_norm, "attention": attention, "norm_2": layer_norm, "up": linear, "down": linear}
    for index in range(depth):
        for name, row in kinds.items():
            yield row(f"blocks.{index}.{name}", **places(name, index))


def block_places(name: str, index: int) -> dict[str, str]:
    """Where a layer of a block is, block by block."""
    return {"haiku": f"block_{index}_{name}", "linen": f"block_{index}/{name}", "nnx": f"blocks.{index}.{name}"}


def causal(length):
    """Which position may see which."""
    return jnp.tril(jnp.ones((1, 1, length, length), bool))


def haiku_gpt(depth, stacked=False):
    """A language model; its blocks are a loop where they are stacked."""

    def forward(words):
        x = hk.Embed(WORDS, WIDTH, name="words")(words)
        x = x + hk.Embed(LENGTH, WIDTH, name="places")(jnp.arange(words.shape[1]))
        mask = causal(words.shape[1])
        if stacked:
            x = hk.layer_stack(depth, name="stack")(lambda x: haiku_block(x, "", mask))(x)
        else:
            for index in range(depth):
                x = haiku_block(x, f"block_{index}_", mask)
        return hk.Linear(WORDS, name="head")(hk.LayerNorm(-1, True, True, name="norm")(x))

    return hk.without_apply_rng(hk.transform(forward))


class LinenGpt(nn.Module):
    """The same in Linen."""

    depth: int
    stacked: bool = False

    @nn.compact
    def __call__(self, words):
        x = nn.Embed(WORDS, WIDTH, name="words")(words)
        x = x + nn.Embed(LENGTH, WIDTH, name="places")(jnp.arange(words.shape[1]))
        mask = causal(words.shape[1])
        if self.stacked:
            loop = nn.scan(
                LinenTurn, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast,
                length=self.depth,
            )  # fmt: skip
            x, _ = loop(name="stack")(x, mask)
        else:
            for index in range(self.depth):
                x = LinenBlock(name=f"block_{index}")(x, mask)
        return nn.Dense(WORDS, name="head")(nn.LayerNorm(**ONE_PASS, name="norm")(x))


class NnxGpt(nnx.Module):
    """The same in NNX, always written out."""

    def __init__(self, depth, rngs):
        self.words, self.places = nnx.Embed(WORDS, WIDTH, rngs=rngs), nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(WIDTH, **TWO_PASS, rngs=rngs), nnx.Linear(WIDTH, WORDS, rngs=rngs)

    def __call__(self, words):
        x = self.words(words) + self.places(jnp.arange(words.shape[1]))
        for block in self.blocks:
            x = block(x, causal(words.shape[1]))
        return self.head(self.norm(x))


def same_place(*names: str) -> Iterator[dict[str, str]]:
    """Layers that have one name in all libraries."""
    for name in names:
        yield {"haiku": name, "linen": name, "nnx": name}


def words_loss(outputs, batch):
    """Cross entropy with the next word."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], batch["words"][:, 1:]).mean()


def gpt(depth: int, stacked: bool = False) -> Case:
    """The case of the language model."""
    ends = zip(("words", "places", "norm", "head"), (embed, embed, layer_norm, linear), strict=True)

    def stacked_places(name, index):
        return {
            "haiku": f"stack/{name}[{index}]",
            "linen": f"stack/block/{name}[{index}]",
            "nnx": f"blocks.{index}.{name}",
        }

    return Case(
        guide="none: GPT",
        models={
            "haiku": partial(haiku_gpt, depth, stacked),
            "linen": partial(LinenGpt, depth, stacked),
            "nnx": partial(NnxGpt, depth),
        },
        batch={"words": f"int32[2,{LENGTH}]:{WORDS}"},
        layers=(
            *(row(name, haiku=name, linen=name, nnx=name) for name, row in ends),
            *block_rows(depth, stacked_places if stacked else block_places),
        ),
        loss=words_loss,
        optimizer=lambda: optax.adamw(1e-3),
    )


def haiku_vit(depth):
    """A vision transformer with a token for the class."""

    def forward(image):
        x = hk.Conv2D(WIDTH, 2, 2, padding="VALID", name="patches")(image).reshape(image.shape[0], -1, WIDTH)
        token = hk.get_parameter("token", (1, 1, WIDTH), init=hk.initializers.RandomNormal())
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, WIDTH)), x], axis=1)
        x = x + hk.get_parameter("places", (1, x.shape[1], WIDTH), init=hk.initializers.RandomNormal())
        for index in range(depth):
            x = haiku_block(x, f"block_{index}_")
        x = hk.LayerNorm(-1, True, True, name="norm")(x)
        return hk.Linear(CLASSES, name="head")(x[:, 0])

    return hk.without_apply_rng(hk.transform(forward))


class LinenVit(nn.Module):
    """The same in Linen."""

    depth: int

    @nn.compact
    def __call__(self, image):
        x = nn.Conv(WIDTH, (2, 2), (2, 2), padding="VALID", name="patches")(image)
        x = x.reshape(image.shape[0], -1, WIDTH)
        token = self.param("token", nn.initializers.normal(), (1, 1, WIDTH))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("places", nn.initializers.normal(), (1, x.shape[1], WIDTH))
        for index in range(self.depth):
            x = LinenBlock(name=f"block_{index}")(x)
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm(**ONE_PASS, name="norm")(x)[:, 0])


class NnxVit(nnx.Module):
    """The same in NNX."""

    def __init__(self, depth, rngs):
        self.patches = nnx.Conv(3, WIDTH, (2, 2), strides=2, padding="VALID", rngs=rngs)
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, WIDTH)))
        self.places = nnx.Param(jax.random.normal(rngs.params(), (1, 5, WIDTH)))
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(WIDTH, **TWO_PASS, rngs=rngs), nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, image):
        x = self.patches(image).reshape(image.shape[0], -1, WIDTH)
        x = jnp.concatenate([jnp.tile(self.token[...], (x.shape[0], 1, 1)), x], axis=1) + self.places[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def labels_loss(outputs, batch):
    """Cross entropy with the labels."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


def vit(depth: int) -> Case:
    """The case of the vision transformer."""
    ends = zip(("patches", "norm", "head"), (conv, layer_norm, linear), strict=True)
    return Case(
        guide="none: ViT",
        models={"haiku": partial(haiku_vit, depth), "linen": partial(LinenVit, depth), "nnx": partial(NnxVit, depth)},
        batch={"image": "float32[2,4,4,3]", "labels": f"int32[2]:{CLASSES}"},
        methods={"__call__": ("image",)},
        layers=(
            *(row(name, haiku=name, linen=name, nnx=name) for name, row in ends),
            *(parameter(name, haiku=f"~/{name}", linen=name, nnx=name) for name in ("token", "places")),
            *block_rows(depth, block_places),
        ),
        loss=labels_loss,
        optimizer=lambda: optax.adam(1e-3),
    )


def haiku_resnet(depth, batch_norm=True):
    """Residual blocks of two convolutions with norms, and a strided one with a shortcut in the middle."""

    def forward(image, training):
        def norm(x, name):
            if batch_norm:
                return hk.BatchNorm(True, True, 0.9, name=name)(x, training)
            return hk.GroupNorm(2, name=name)(x)

        x = jax.nn.relu(norm(hk.Conv2D(4, 3, with_bias=False, name="stem")(image), "stem_norm"))
        for index in range(depth):
            features, stride = (8, 2) if index == depth // 2 else (x.shape[-1], 1)
            y = hk.Conv2D(features, 3, stride, with_bias=False, name=f"conv_1_{index}")(x)
            y = jax.nn.relu(norm(y, f"norm_1_{index}"))
            y = norm(hk.Conv2D(features, 3, with_bias=False, name=f"conv_2_{index}")(y), f"norm_2_{index}")
            if stride > 1:
                x = hk.Conv2D(features, 1, stride, with_bias=False, name="shortcut")(x)
            x = jax.nn.relu(x + y)
        return hk.Linear(CLASSES, name="head")(x.mean((1, 2)))

    return hk.without_apply_rng(hk.transform_with_state(forward) if batch_norm else hk.transform(forward))


class LinenResnet(nn.Module):
    """The same in Linen."""

    depth: int
    batch_norm: bool = True

    @nn.compact
    def __call__(self, image, training):
        def norm(name):
            if self.batch_norm:
                return nn.BatchNorm(not training, momentum=0.9, name=name)
            return nn.GroupNorm(2, **ONE_PASS, name=name)

        x = nn.relu(norm("stem_norm")(nn.Conv(4, (3, 3), use_bias=False, name="stem")(image)))
        for index in range(self.depth):
            features, stride = (8, 2) if index == self.depth // 2 else (x.shape[-1], 1)
            y = nn.Conv(features, (3, 3), stride, use_bias=False, name=f"conv_1_{index}")(x)
            y = nn.relu(norm(f"norm_1_{index}")(y))
            y = norm(f"norm_2_{index}")(nn.Conv(features, (3, 3), use_bias=False, name=f"conv_2_{index}")(y))
            if stride > 1:
                x = nn.Conv(features, (1, 1), stride, use_bias=False, name="shortcut")(x)
            x = nn.relu(x + y)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class NnxResnet(nnx.Module):
    """The same in NNX."""

    def __init__(self, depth, rngs, batch_norm=True):
        def norm(features):
            if batch_norm:
                return nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
            return nnx.GroupNorm(features, 2, **TWO_PASS, rngs=rngs)

        make = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.stem, self.stem_norm = make(3, 4, (3, 3)), norm(4)
        widths = [4] * (depth // 2) + [8] * (depth - depth // 2)
        before = [4, *widths[:-1]]
        self.strides = [1 + (index == depth // 2) for index in range(depth)]
        self.conv_1 = nnx.List(
            make(m, n, (3, 3), strides=s) for m, n, s in zip(before, widths, self.strides, strict=True)
        )
        self.conv_2 = nnx.List(make(n, n, (3, 3)) for n in widths)
        self.norm_1, self.norm_2 = (nnx.List(norm(n) for n in widths) for _ in range(2))
        self.shortcut, self.head = make(4, 8, (1, 1), strides=2), nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, image):
        x = nnx.relu(self.stem_norm(self.stem(image)))
        for index, stride in enumerate(self.strides):
            y = nnx.relu(self.norm_1[index](self.conv_1[index](x)))
            y = self.norm_2[index](self.conv_2[index](y))
            x = nnx.relu((self.shortcut(x) if stride > 1 else x) + y)
        return self.head(x.mean((1, 2)))


def resnet(depth: int, batched: bool = True) -> Case:
    """The case of the residual network."""
    norm = batch_norm if batched else group_norm

    def inner(row, name):
        return (
            row(f"blocks.{i}.{name}", haiku=f"{name}_{i}", linen=f"{name}_{i}", nnx=f"{name}.{i}") for i in range(depth)
        )

    norms = ["stem_norm", *(f"blocks.{index}.norm_{one}" for index in range(depth) for one in (1, 2))]
    ends = {"stem": conv, "stem_norm": norm, "shortcut": conv, "head": linear}
    return Case(
        guide="none: ResNet",
        models={
            "haiku": partial(haiku_resnet, depth, batched),
            "linen": partial(LinenResnet, depth, batched),
            "nnx": partial(NnxResnet, depth, batch_norm=batched),
        },
        batch={"image": "float32[2,8,8,3]", "labels": f"int32[2]:{CLASSES}"},
        methods={"__call__": ("image",)},
        layers=(
            *(row(name, haiku=name, linen=name, nnx=name) for name, row in ends.items()),
            *(row for name in ("conv_1", "conv_2") for row in inner(conv, name)),
            *(row for name in ("norm_1", "norm_2") for row in inner(norm, name)),
        ),
        loss=labels_loss,
        optimizer=lambda: optax.sgd(0.1, momentum=0.9),
        known_differences=tuple(one for name in norms for one in zero_debias(name, decay=0.9)) if batched else (),
    )


DEEP_CASES = {
    "gpt": gpt,
    "gpt_scanned": partial(gpt, stacked=True),
    "vit": vit,
    "resnet": resnet,
    "resnet_group_norm": partial(resnet, batched=False),
}
"""Name to a case of a depth."""
