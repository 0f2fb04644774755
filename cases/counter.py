"""A model without layers: state and parameters by name in Haiku, by collection in Linen, by type in NNX."""

from equiv.case import Case, Deviation
from equiv.layers import parameter, state


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    def forward(x):
        counter = hk.get_state("counter", shape=[], dtype=jnp.int32, init=jnp.ones)
        multiplier = hk.get_parameter("multiplier", shape=[1], dtype=x.dtype, init=jnp.ones)

        output = x + multiplier * counter

        hk.set_state("counter", counter + 1)
        return output

    model = hk.transform_with_state(forward)

    return model


def linen():
    import flax.linen as nn
    import jax.numpy as jnp

    class FooModule(nn.Module):
        @nn.compact
        def __call__(self, x):
            counter = self.variable("counter", "count", lambda: jnp.ones((), jnp.int32))
            multiplier = self.param("multiplier", nn.initializers.ones_init(), [1], x.dtype)

            output = x + multiplier * counter.value

            if not self.is_initializing():  # otherwise model.init() also increases it
                counter.value += 1
            return output

    model = FooModule()

    return model


def nnx(rngs):
    import jax.numpy as jnp
    from flax import nnx

    class Counter(nnx.Variable):
        pass

    class FooModule(nnx.Module):
        def __init__(self, rngs):
            self.counter = Counter(jnp.ones((), jnp.int32))
            self.multiplier = nnx.Param(nnx.initializers.ones(rngs.params(), [1], jnp.float32))

        def __call__(self, x):
            output = x + self.multiplier * self.counter[...]

            self.counter[...] += 1
            return output

    model = FooModule(rngs=rngs)

    return model


CASE = Case(
    guide="Migrating from Haiku to Flax (Haiku, Linen), (Haiku, NNX) and (Haiku, Linen, NNX), "
    '"Top-level Haiku functions vs top-level Flax modules"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[6,64]"},
    methods={"__call__": ("x",)},
    layers=(
        parameter("multiplier", haiku="~/multiplier", linen="multiplier", nnx="multiplier"),
        state("counter", haiku="~/counter", linen="counter/count", nnx="counter"),
    ),
    deviations=(
        Deviation(
            backend="nnx",
            prints="`output = x + self.multiplier * self.counter.value` and `self.counter.value += 1`",
            happens="right values, with three DeprecationWarnings: two '.value' access is now deprecated, "
            "one '.value' setter is now deprecated. For Variable[Array] instances use: variable[...] = value",
            works="`self.counter[...]` and `self.counter[...] += 1`; `self.counter += 1` raises NotImplementedError: "
            "In-place operations are no longer supported for Variable.",
            versions="flax 0.12.8",
            evidence='guides (Haiku, NNX) and (Haiku, Linen, NNX), "Top-level Haiku functions"',
        ),
    ),
)
