"""`hk.MultiHeadAttention` across two sequences (dm-haiku) against Linen that scales by the size of all heads."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair

HEADS, SIZE, WIDTH = 4, 4, 16


def published():
    def forward(x, memory):
        init = hk.initializers.VarianceScaling()
        return hk.MultiHeadAttention(HEADS, SIZE, w_init=init, model_size=WIDTH)(x, memory, memory)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x, memory):
        def heads(name, inputs):
            return nn.DenseGeneral((HEADS, SIZE), name=name)(inputs)

        query, key, value = heads("to_q", x), heads("to_k", memory), heads("to_v", memory)
        query = query / (HEADS * SIZE) ** 0.5
        weights = nn.softmax((query[:, :, None] * key[:, None]).sum(-1), axis=2)
        mixed = (weights[..., None] * value[:, None]).sum(2)
        return nn.DenseGeneral(WIDTH, axis=(-2, -1), name="to_out")(mixed)


def by_hand(left):
    found = {}
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
        found[f"{new}/kernel"] = left[f"multi_head_attention/{old}/w"].reshape(-1, HEADS, SIZE)
        found[f"{new}/bias"] = left[f"multi_head_attention/{old}/b"].reshape(HEADS, SIZE)
    found["to_out/kernel"] = left["multi_head_attention/linear/w"].reshape(HEADS, SIZE, WIDTH)
    return found | {"to_out/bias": left["multi_head_attention/linear/b"]}


PAIR = Pair(
    published,
    Port,
    {"x": "float32[2,5,10]", "memory": "float32[2,7,6]"},
    "different",
    by_hand,
    bug="scores are divided by the root of the width, not of a head's size",
)
