"""`nn.MultiHeadDotProductAttention` with normalised queries and keys (flax) against `nnx.MultiHeadAttention`."""

import flax.linen as nn
from flax import nnx
from published_pair import Pair


def published():
    return nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=12, out_features=5, normalize_qk=True)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.attend = nnx.MultiHeadAttention(
            3, 8, qkv_features=12, out_features=5, in_kv_features=6, normalize_qk=True, decode=False, rngs=rngs
        )

    def __call__(self, x, memory):
        return self.attend(x, memory)


def by_hand(left):
    return {f"attend.{path.replace('/', '.')}": leaf for path, leaf in left.items()}


PAIR = Pair(published, Port, {"x": "float32[2,5,8]", "memory": "float32[2,7,6]"}, "same", by_hand)
