"""A flow of `distrax.MaskedCoupling` with Haiku networks against an NNX port that computes its density itself."""

import haiku as hk
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_pair import Pair

SIZE, LAYERS, HIDDEN = 4, 3, 8


def published():
    import distrax

    def forward(x):
        layers = []
        for number in range(LAYERS):
            network = hk.Sequential([hk.nets.MLP([HIDDEN], activate_final=True), hk.Linear(2 * SIZE)])

            def bijector(parameters):
                shift, log_scale = jnp.split(parameters, 2, -1)
                return distrax.ScalarAffine(shift=shift, log_scale=jnp.tanh(log_scale))

            mask = (jnp.arange(SIZE) + number) % 2 == 0
            layers.append(distrax.MaskedCoupling(mask=mask, bijector=bijector, conditioner=network))
        base = distrax.MultivariateNormalDiag(jnp.zeros(SIZE), jnp.ones(SIZE))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers))).log_prob(x)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.List([nnx.Linear(SIZE, HIDDEN, rngs=rngs) for _ in range(LAYERS)])
        self.shift = nnx.List([nnx.Linear(HIDDEN, SIZE, rngs=rngs) for _ in range(LAYERS)])
        self.log_scale = nnx.List([nnx.Linear(HIDDEN, SIZE, rngs=rngs) for _ in range(LAYERS)])

    def __call__(self, x):
        total = 0.0
        for number in reversed(range(LAYERS)):
            free = (np.arange(SIZE) + number) % 2
            hidden = nnx.relu(self.hidden[number](x * (1 - free)))
            log_scale = free * jnp.tanh(self.log_scale[number](hidden))
            x = x * jnp.exp(log_scale) + free * self.shift[number](hidden)
            total += log_scale.sum(-1)
        return total - 0.5 * (x**2).sum(-1) - 0.5 * SIZE * jnp.log(2 * jnp.pi)


def by_hand(left):
    found = {}
    for number in range(LAYERS):
        end = f"_{number}" if number else ""
        for short, leaf in (("w", "kernel"), ("b", "bias")):
            found[f"hidden.{number}.{leaf}"] = left[f"mlp{end}/~/linear_0/{short}"]
            shift, log_scale = np.split(left[f"linear{end}/{short}"], 2, -1)
            found |= {f"shift.{number}.{leaf}": shift, f"log_scale.{number}.{leaf}": log_scale}
    return found


PAIR = Pair(published, Port, {"x": "float32[5,4]"}, "same", by_hand, needs=("distrax==0.1.9",))
