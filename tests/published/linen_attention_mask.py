"""`nn.SelfAttention` with a causal mask (flax) against NNX whose mask lets every position see the next one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from published_pair import Pair

HEADS, SIZE = 2, 4


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.SelfAttention(HEADS, name="attend")(x, nn.make_causal_mask(x[..., 0]))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.wq, self.wk, self.wv, self.wo = (nnx.Linear(8, 8, rngs=rngs) for _ in range(4))

    def __call__(self, x):
        def heads(layer):
            return layer(x).reshape(*x.shape[:2], HEADS, SIZE).swapaxes(1, 2)

        scores = heads(self.wq) @ heads(self.wk).swapaxes(2, 3) / jnp.sqrt(SIZE)
        seen = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool), k=1)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
        return self.wo((weights @ heads(self.wv)).swapaxes(1, 2).reshape(x.shape))


def by_hand(left):
    found = {}
    for old, new in (("query", "wq"), ("key", "wk"), ("value", "wv")):
        found[f"{new}.kernel"] = left[f"attend/{old}/kernel"].reshape(8, 8)
        found[f"{new}.bias"] = left[f"attend/{old}/bias"].ravel()
    return found | {"wo.kernel": left["attend/out/kernel"].reshape(8, 8), "wo.bias": left["attend/out/bias"]}


PAIR = Pair(
    Published,
    Port,
    {"x": "float32[2,5,8]"},
    "different",
    by_hand,
    bug="the mask's diagonal is one too far to the right",
)
