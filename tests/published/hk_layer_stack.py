"""`hk.experimental.layer_stack` (dm-haiku) against a list of NNX blocks, one after the other."""

import haiku as hk
import jax
from flax import nnx
from published_pair import Pair

LAYERS, WIDTH = 4, 6


def published():
    def block(x):
        normed = hk.LayerNorm(-1, True, True, name="norm")(x)
        return x + hk.Linear(WIDTH, name="narrow")(jax.nn.gelu(hk.Linear(2 * WIDTH, name="wide")(normed)))

    def forward(x):
        return hk.Linear(3, name="head")(hk.experimental.layer_stack(LAYERS)(block)(x))

    return hk.without_apply_rng(hk.transform(forward))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.ln = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.gelu(self.up(self.ln(x))))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.out = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def by_hand(left):
    found = {"out.kernel": left["head/w"], "out.bias": left["head/b"]}
    names = {
        "norm/scale": "ln.scale",
        "norm/offset": "ln.bias",
        "wide/w": "up.kernel",
        "wide/b": "up.bias",
        "narrow/w": "down.kernel",
        "narrow/b": "down.bias",
    }
    (prefix,) = {path.removesuffix("norm/scale") for path in left if path.endswith("norm/scale")}
    for old, new in names.items():
        for index in range(LAYERS):
            found[f"blocks.{index}.{new}"] = left[prefix + old][index]
    return found


PAIR = Pair(published, Port, {"x": "float32[5,6]"}, "same", by_hand)
