"""T5 of transformers, encoder and decoder with a tied head, against an NNX port with einsum projections."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from published_names import rename
from published_pair import Pair

WIDTH, HEADS, SIZE, ROWS, SOURCE, TARGET = 32, 4, 8, 64, 9, 6

NEEDS = ("transformers==4.57.6",)
BATCH = {
    "ids": f"int32[2,{SOURCE}]:{ROWS}",
    "mask": np.array([[1] * SOURCE, [1] * 6 + [0] * 3], "int32"),
    "target": f"int32[2,{TARGET}]:{ROWS}",
}


def published():
    """The conditional generation model, without dropout."""
    from flax import linen as nn
    from transformers.models.t5 import T5Config, modeling_flax_t5

    # jax 0.10 has no `jnp.clip(a_max=)` any more.
    modeling_flax_t5.jnp = SimpleNamespace(**vars(jnp) | {"clip": lambda x, a_max: jnp.minimum(x, a_max)})

    config = T5Config(
        vocab_size=ROWS,
        d_model=WIDTH,
        d_kv=SIZE,
        d_ff=64,
        num_layers=2,
        num_heads=HEADS,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
    )

    class T5(nn.Module):
        @nn.compact
        def __call__(self, ids, mask, target):
            model = modeling_flax_t5.FlaxT5ForConditionalGenerationModule(config, name="t5")
            return model(ids, mask, target, jnp.ones_like(target), return_dict=False)[0]

    return T5()


def bucket(offset, two_sided, buckets=8, distance=16):
    """The row of the bias table for each distance."""
    number = buckets // 2 if two_sided else buckets
    start = number * (offset > 0) if two_sided else 0
    offset = np.abs(offset) if two_sided else np.maximum(-offset, 0)
    exact = number // 2
    far = np.log(np.maximum(offset, 1) / exact) / math.log(distance / exact) * (number - exact)
    far = np.minimum(exact + far, number - 1).astype("int32")
    return start + np.where(offset < exact, offset, far)


def layers(rngs):
    """The classes of a norm, an attention and a feed-forward layer, whose kernels have their heads as an axis."""
    from flax import nnx

    def kernel(shape):
        return nnx.Param(jax.random.normal(rngs.params(), shape) * 0.1)

    class Norm(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.ones(WIDTH))

        def __call__(self, x):
            return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * self.scale

    class Attention(nnx.Module):
        def __init__(self):
            self.norm = Norm()
            self.q, self.k, self.v = (kernel((WIDTH, HEADS, SIZE)) for _ in range(3))
            self.o = kernel((HEADS, SIZE, WIDTH))

        def __call__(self, x, source=None, bias=None, allowed=None):
            normed = self.norm(x)
            source = normed if source is None else source
            q = jnp.einsum("btd,dhs->bhts", normed, self.q[...])
            k = jnp.einsum("btd,dhs->bhts", source, self.k[...])
            v = jnp.einsum("btd,dhs->bhts", source, self.v[...])
            logits = jnp.einsum("bhqs,bhks->bhqk", q, k)
            if bias is not None:
                logits += bias
            if allowed is not None:
                logits = jnp.where(allowed, logits, -1e9)
            found = jnp.einsum("bhqk,bhks->bhqs", jax.nn.softmax(logits), v)
            return x + jnp.einsum("bhqs,hsd->bqd", found, self.o[...])

    class Feed(nnx.Module):
        def __init__(self):
            self.norm = Norm()
            self.wi = nnx.Linear(WIDTH, 64, use_bias=False, rngs=rngs)
            self.wo = nnx.Linear(64, WIDTH, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return x + self.wo(nnx.relu(self.wi(self.norm(x))))

    return Norm, Attention, Feed


def port(rngs):
    """A port whose bias tables belong to the stacks."""
    from flax import nnx

    Norm, Attention, Feed = layers(rngs)

    class Stack(nnx.Module):
        def __init__(self, decoder):
            self.decoder = decoder
            self.bias = nnx.Embed(8, HEADS, rngs=rngs)
            self.attends = nnx.List([Attention() for _ in range(2)])
            self.reads = nnx.List([Attention() for _ in range(2 * decoder)])
            self.feeds = nnx.List([Feed() for _ in range(2)])
            self.norm = Norm()

        def __call__(self, x, allowed, source=None, source_allowed=None):
            places = np.arange(x.shape[1])
            table = bucket(places[None, :] - places[:, None], not self.decoder)
            bias = jnp.moveaxis(self.bias(table), -1, 0)
            for number, (attend, feed) in enumerate(zip(self.attends, self.feeds, strict=True)):
                x = attend(x, None, bias, allowed)
                if self.decoder:
                    x = self.reads[number](x, source, None, source_allowed)
                x = feed(x)
            return self.norm(x)

    class T5(nnx.Module):
        def __init__(self):
            self.table = nnx.Embed(ROWS, WIDTH, rngs=rngs)
            self.encoder = Stack(False)
            self.decoder = Stack(True)

        def __call__(self, ids, mask, target):
            allowed = mask[:, None, None, :] > 0
            memory = self.encoder(self.table(ids), allowed)
            causal = np.tril(np.ones((TARGET, TARGET), bool))
            x = self.decoder(self.table(target), causal, memory, allowed)
            return self.table.attend(x * WIDTH**-0.5)

    return T5()


def by_hand(left):
    names = {"t5/shared": "table"}
    for stack, feed in (("encoder", 1), ("decoder", 2)):
        block = f"t5/{stack}/block/{{}}/layer"
        names |= {
            f"t5/{stack}/block/0/layer/0/SelfAttention/relative_attention_bias": f"{stack}.bias",
            f"t5/{stack}/final_layer_norm/weight": f"{stack}.norm.scale",
            f"{block}/0/layer_norm/weight": f"{stack}.attends.{{}}.norm.scale",
            f"{block}/{feed}/layer_norm/weight": f"{stack}.feeds.{{}}.norm.scale",
            f"{block}/{feed}/DenseReluDense/wi": f"{stack}.feeds.{{}}.wi",
            f"{block}/{feed}/DenseReluDense/wo": f"{stack}.feeds.{{}}.wo",
        }
    names["t5/decoder/block/{}/layer/1/layer_norm/weight"] = "decoder.reads.{}.norm.scale"
    found = rename(left, names, layers=2)
    attentions = (
        ("encoder", 0, "SelfAttention", "attends"),
        ("decoder", 0, "SelfAttention", "attends"),
        ("decoder", 1, "EncDecAttention", "reads"),
    )
    for stack, place, old, new in attentions:
        for number in range(2):
            layer = f"t5/{stack}/block/{number}/layer/{place}/{old}"
            for name in ("q", "k", "v"):
                kernel = left[f"{layer}/{name}/kernel"].reshape(WIDTH, HEADS, SIZE)
                found[f"{stack}.{new}.{number}.{name}"] = kernel
            found[f"{stack}.{new}.{number}.o"] = left[f"{layer}/o/kernel"].reshape(HEADS, SIZE, WIDTH)
    return found


PAIR = Pair(published, port, BATCH, "same", by_hand, needs=NEEDS)
