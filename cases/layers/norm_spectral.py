"""Spectral norm: a kernel divided by its largest singular value, which a vector kept as state follows.

Haiku normalises a value, Flax wraps a layer. `eps` is 1e-4 in Haiku and 1e-12 in Flax. NNX's own writes the normalised
kernel over the kernel at every call, and so trains another one: here is a layer that does not.
"""

from equiv.case import Case
from equiv.layers import linear, spectral_norm


def haiku():
    import haiku as hk

    class Linear(hk.Module):
        def __call__(self, x, training: bool):
            w = hk.get_parameter("w", [x.shape[-1], 7], x.dtype, init=hk.initializers.VarianceScaling())
            b = hk.get_parameter("b", [7], x.dtype, init=hk.initializers.Constant(0.0))
            return x @ hk.SpectralNorm(name="norm")(w, update_stats=training) + b

    def forward(x, training: bool):
        return Linear()(x, training)

    return hk.without_apply_rng(hk.transform_with_state(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, training: bool):
            return nn.SpectralNorm(nn.Dense(7), epsilon=1e-4)(x, update_stats=training)

    return Model()


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class SpectralLinear(nnx.Module):
        def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
            self.linear = nnx.Linear(inputs, outputs, rngs=rngs)
            self.u = nnx.BatchStat(jax.random.normal(rngs.params(), (1, outputs)))
            self.sigma = nnx.BatchStat(jnp.ones(()))
            self.use_running_average = False  # what `eval()` and `train()` switch

        def __call__(self, x):
            kernel = self.linear.kernel[...]
            v = self.normalised(self.u[...] @ kernel.T)
            u = jax.lax.stop_gradient(self.normalised(v @ kernel))
            sigma = (jax.lax.stop_gradient(v) @ kernel @ u.T)[0, 0]
            if not self.use_running_average:
                self.u[...], self.sigma[...] = u, sigma
            return x @ (kernel / sigma) + self.linear.bias[...]

        def normalised(self, x):
            return x * jax.lax.rsqrt((x * x).sum(keepdims=True) + 1e-4)

    return SpectralLinear(3, 7, rngs)


CASE = Case(
    guide="API references: hk.SpectralNorm, nn.SpectralNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,3]"},
    layers=(
        linear("linear", haiku="linear", linen="Dense_0", nnx="linear"),
        spectral_norm("norm", haiku="linear/norm", linen="SpectralNorm_0/Dense_0/kernel", nnx=""),
    ),
)
