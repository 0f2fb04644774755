"""Attention whose values are of another size than its keys: Haiku has it, Flax's layers do not.

So here it is, of dense layers and einsum; `jax.nn.dot_product_attention`, which NNX calls, takes one size only.
"""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk

    def forward(x, memory):
        layer = hk.MultiHeadAttention(
            num_heads=2, key_size=3, value_size=5, model_size=7, w_init=hk.initializers.VarianceScaling(1.0)
        )
        return layer(x, memory, memory)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, memory):
            query = nn.Dense(6, name="query")(x).reshape(*x.shape[:-1], 2, 3)
            key = nn.Dense(6, name="key")(memory).reshape(*memory.shape[:-1], 2, 3)
            value = nn.Dense(10, name="value")(memory).reshape(*memory.shape[:-1], 2, 5)
            y = nn.dot_product_attention(query, key, value)
            return nn.Dense(7, name="out")(y.reshape(*x.shape[:-1], 10))

    return Attention()


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Attention(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.query = nnx.Linear(9, 6, rngs=rngs)
            self.key = nnx.Linear(8, 6, rngs=rngs)
            self.value = nnx.Linear(8, 10, rngs=rngs)
            self.out = nnx.Linear(10, 7, rngs=rngs)

        def __call__(self, x, memory):
            query = self.query(x).reshape(*x.shape[:-1], 2, 3)
            key = self.key(memory).reshape(*memory.shape[:-1], 2, 3)
            value = self.value(memory).reshape(*memory.shape[:-1], 2, 5)
            logits = jnp.einsum("bqhd,bkhd->bhqk", query / jnp.sqrt(3.0).astype(x.dtype), key)
            y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)
            return self.out(y.reshape(*x.shape[:-1], 10))

    return Attention(rngs)


CASE = Case(
    guide="API reference: hk.MultiHeadAttention",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,9]", "memory": "float32[5,11,8]"},
    layers=(
        linear("query", haiku="multi_head_attention/query", linen="query", nnx="query"),
        linear("key", haiku="multi_head_attention/key", linen="key", nnx="key"),
        linear("value", haiku="multi_head_attention/value", linen="value", nnx="value"),
        linear("out", haiku="multi_head_attention/linear", linen="out", nnx="out"),
    ),
)
