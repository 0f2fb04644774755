"""Raw parameters and state: what a model asks for by name, here with a kernel that one library keeps transposed."""

from equiv.case import Case
from equiv.layers import parameter, state
from equiv.layouts import SwapAxes


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    def forward(x):
        w = hk.get_parameter("w", [x.shape[-1], 7], x.dtype, init=hk.initializers.VarianceScaling())
        largest = hk.get_state("largest", [x.shape[-1]], x.dtype, init=jnp.zeros)
        largest = jnp.maximum(largest, jnp.abs(x).max(axis=0))
        hk.set_state("largest", largest)
        return (x / (1 + largest)) @ w

    return hk.without_apply_rng(hk.transform_with_state(forward))


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.lecun_normal(in_axis=1, out_axis=0), (7, x.shape[-1]))
            largest = self.variable("scales", "largest", jnp.zeros, (x.shape[-1],))
            new = jnp.maximum(largest.value, jnp.abs(x).max(axis=0))
            if not self.is_initializing():
                largest.value = new
            return (x / (1 + new)) @ w.T

    return Model()


def nnx(rngs):
    import jax.numpy as jnp
    from flax import nnx

    class Largest(nnx.Variable):
        pass

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.w = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 7)))
            self.largest = Largest(jnp.zeros(3))

        def __call__(self, x):
            self.largest[...] = jnp.maximum(self.largest[...], jnp.abs(x).max(axis=0))
            return (x / (1 + self.largest[...])) @ self.w[...]

    return Model(rngs)


CASE = Case(
    guide="API references: hk.get_parameter, hk.get_state, nn.Module.variable, nnx.Variable",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,3]"},
    layers=(
        parameter("w", layouts={"linen": {"": SwapAxes()}}, haiku="~/w", linen="w", nnx="w"),
        state("largest", haiku="~/largest", linen="scales/largest", nnx="largest"),
    ),
)
