"""numpyro's `AutoregressiveNN`, whose parameters are a list of tuples, against an NNX port with masked layers."""

import itertools

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from published_pair import Pair

INPUTS, HIDDEN = 4, (9, 8)


class Published(linen.Module):
    @linen.compact
    def __call__(self, x):
        from numpyro.nn import AutoregressiveNN

        initialize, apply = AutoregressiveNN(INPUTS, list(HIDDEN), param_dims=[1, 1], skip_connections=True)
        return apply(self.param("made", lambda key: initialize(key, x.shape)[1]), x)


class Masked(nnx.Module):
    def __init__(self, mask, use_bias, rngs):
        self.mask = mask
        self.linear = nnx.Linear(*mask.shape, use_bias=use_bias, rngs=rngs)

    def __call__(self, x):
        found = x @ jnp.where(self.mask, self.linear.kernel[...], 0.0)
        return found if self.linear.bias is None else found + self.linear.bias[...]


class Port(nnx.Module):
    def __init__(self, rngs):
        first = np.arange(1, INPUTS + 1)
        degrees = [first, *(np.round(np.linspace(1, INPUTS - 1, size)) for size in HIDDEN)]
        last = np.tile(first, 2)
        masks = [new[None, :] >= old[:, None] for old, new in itertools.pairwise(degrees)]
        masks.append(last[None, :] > degrees[-1][:, None])
        self.layers = nnx.List([Masked(mask, True, rngs) for mask in masks])
        self.skip = Masked(last[None, :] > first[:, None], False, rngs)

    def __call__(self, x):
        hidden = x
        for layer in self.layers[:-1]:
            hidden = nnx.relu(layer(hidden))
        found = self.layers[-1](hidden) + self.skip(x)
        return found[..., :INPUTS], found[..., INPUTS:]


def by_hand(left):
    found = {"skip.linear.kernel": left["made/1/1"]}
    for number, place in enumerate((0, 2, 4)):
        found[f"layers.{number}.linear.kernel"] = left[f"made/1/0/{place}/0"]
        found[f"layers.{number}.linear.bias"] = left[f"made/1/0/{place}/1"]
    return found


PAIR = Pair(Published, Port, {"x": "float32[5,4]"}, "same", by_hand, needs=("numpyro==0.22.0",))
