"""The functional API: `nnx.split` by kind of variable gives the trees that Haiku and Linen have from the start.

The guide has NNX only, and no train step. The train step, and the Haiku and Linen columns, are ours.
"""

from equiv.case import Case, Deviation
from equiv.layers import module, state


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    class StatefulLinear(hk.Module):
        def __init__(self, dout: int, name=None):
            super().__init__(name=name)
            self.dout = dout

        def __call__(self, x):
            w = hk.get_parameter("w", (x.shape[-1], self.dout), x.dtype, init=hk.initializers.RandomUniform(0.0, 1.0))
            b = hk.get_parameter("b", (self.dout,), x.dtype, init=jnp.zeros)
            count = hk.get_state("count", (), jnp.uint32, init=jnp.zeros)
            hk.set_state("count", count + 1)
            return x @ w + b

    def forward(x):
        return StatefulLinear(5)(x)

    model = hk.transform_with_state(forward)

    @jax.jit
    def train_step(params, state, x, y):
        def loss_fn(params, state):
            y_pred, state = model.apply(params, state, None, x)
            return jnp.mean((y_pred - y) ** 2), state

        grads, state = jax.grad(loss_fn, has_aux=True)(params, state)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return params, state

    return model, train_step


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class StatefulLinear(nn.Module):
        dout: int

        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.uniform(1.0), (x.shape[-1], self.dout), x.dtype)
            b = self.param("b", nn.initializers.zeros_init(), (self.dout,), x.dtype)
            count = self.variable("counts", "count", lambda: jnp.zeros((), jnp.uint32))
            if not self.is_initializing():  # otherwise model.init() also increases it
                count.value += 1
            return x @ w + b

    model = StatefulLinear(5)

    @jax.jit
    def train_step(params, counts, x, y):
        def loss_fn(params, counts):
            y_pred, updates = model.apply({"params": params, "counts": counts}, x, mutable="counts")
            return jnp.mean((y_pred - y) ** 2), updates["counts"]

        grads, counts = jax.grad(loss_fn, has_aux=True)(params, counts)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return params, counts

    return model, train_step


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Count(nnx.Variable):
        pass

    class StatefulLinear(nnx.Module):
        def __init__(self, din: int, dout: int, *, rngs: nnx.Rngs):
            self.w = nnx.Param(jax.random.uniform(rngs(), (din, dout)))
            self.b = nnx.Param(jnp.zeros((dout,)))
            self.count = Count(jnp.array(0, dtype=jnp.uint32))

        def __call__(self, x: jax.Array):
            self.count[...] += 1
            return x @ self.w + self.b

    model = StatefulLinear(din=3, dout=5, rngs=rngs)

    @nnx.jit
    def train_step(model, x, y):
        # 1. use split to have one State per kind of variable
        graphdef, params, counts = nnx.split(model, nnx.Param, Count)

        def loss_fn(params, counts):
            # 2. use merge to make a model inside the transform, on its own copy of the counts
            model = nnx.merge(graphdef, params, counts, copy=True)
            # 3. call the module
            y_pred = model(x)
            # 4. use split to hand the new counts out
            _, _, counts = nnx.split(model, nnx.Param, Count)
            return jnp.mean((y_pred - y) ** 2), counts

        grads, counts = jax.grad(loss_fn, has_aux=True)(params, counts)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        # 5. update the original module with both
        nnx.update(model, params, counts)

    return model, train_step


def loss(outputs, batch):
    import jax.numpy as jnp

    return jnp.mean((outputs - batch["y"]) ** 2)


CASE = Case(
    guide='Flax Basics (NNX), "The Functional API"',
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[4,3]", "y": "float32[4,5]"},
    methods={"__call__": ("x",)},
    loss=loss,
    layers=(
        module("linear", "w", "b", haiku="stateful_linear", linen="", nnx=""),
        state("count", haiku="stateful_linear/count", linen="counts/count", nnx="count"),
    ),
    deviations=(
        Deviation(
            backend="nnx",
            prints="`self.count += 1`",
            happens="NotImplementedError: In-place operations are no longer supported for Variable. Use "
            "`variable[...] += x` instead.",
            works="`self.count[...] += 1`",
            versions="flax 0.12.8",
            evidence='guide, "Stateful Computation" and "The Functional API"; run as printed',
        ),
        Deviation(
            backend="nnx",
            prints="`nnx.merge(graphdef, state)`: with `split` and `merge` a module can be used in any JAX transform",
            happens="in `jax.jit`, as printed, it can; in `jax.grad` with respect to the parameters alone: "
            "TraceContextError: Cannot mutate Count from a different trace level",
            works="`nnx.merge(graphdef, params, counts, copy=True)`",
            versions="jax 0.10.2, flax 0.12.8",
            evidence='guide, "Split, Merge, and Update"',
        ),
    ),
)
