"""`nn.Einsum` and `nn.DenseGeneral` over several axes (flax) against `nnx.Einsum` and `nnx.LinearGeneral`."""

import flax.linen as nn
from flax import nnx
from published_pair import Pair


class Published(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Einsum((4, 6, 5), "btmn,mnd->btd", name="mix")(x))
        x = nn.DenseGeneral((3, 2), axis=-1, name="split")(x)
        return nn.DenseGeneral(7, axis=(1, 2), name="join")(x)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Einsum("btmn,mnd->btd", (4, 6, 5), (5,), rngs=rngs)
        self.two = nnx.LinearGeneral(5, (3, 2), rngs=rngs)
        self.three = nnx.LinearGeneral((8, 3), 7, axis=(1, 2), rngs=rngs)

    def __call__(self, x):
        return self.three(self.two(nnx.gelu(self.one(x))))


def by_hand(left):
    names = {"mix": "one", "split": "two", "join": "three"}
    return {f"{names[path.split('/')[0]]}.{path.split('/')[1]}": leaf for path, leaf in left.items()}


PAIR = Pair(Published, Port, {"x": "float32[2,8,4,6]"}, "same", by_hand)
