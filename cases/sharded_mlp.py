"""Sharding: Linen names logical axes in boxes around its parameters, NNX axes of the mesh in the variables themselves.

Each port is also run on meshes of up to eight devices, sharded as it says itself. Both columns are ours, after the
guides.
"""

from equiv.case import Case
from equiv.layers import linear, parameter


def linen():
    import flax.linen as nn
    import jax
    import optax

    class DotReluDot(nn.Module):
        depth: int

        @nn.compact
        def __call__(self, x):
            init = nn.initializers.xavier_normal()
            y = nn.Dense(
                self.depth,
                kernel_init=nn.with_logical_partitioning(init, ("embed", "mlp")),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",)),
            )(x)
            y = jax.nn.relu(y)
            y = nn.with_logical_constraint(y, ("batch", "mlp"))
            w2 = self.param("W2", nn.with_logical_partitioning(init, ("mlp", "embed")), (self.depth, x.shape[-1]))
            z = y @ w2
            return nn.with_logical_constraint(z, ("batch", "embed"))

    model, tx = DotReluDot(16), optax.adam(1e-2)

    def create(params):
        return tx.init(params)

    @jax.jit
    def train_step(params, opt_state, x, y):
        def loss_fn(params):
            return ((model.apply({"params": params}, x) - y) ** 2).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import optax
    from flax import nnx
    from jax.sharding import PartitionSpec as P

    class DotReluDot(nnx.Module):
        def __init__(self, depth: int, rngs: nnx.Rngs):
            init = nnx.initializers.xavier_normal()
            self.dot1 = nnx.Linear(
                8,
                depth,
                kernel_init=nnx.with_partitioning(init, (None, "model")),
                bias_init=nnx.with_partitioning(nnx.initializers.zeros_init(), ("model",)),
                rngs=rngs,
            )
            self.w2 = nnx.Param(nnx.with_partitioning(init, ("model", None))(rngs.params(), (depth, 8)))

        def __call__(self, x):
            y = jax.nn.relu(self.dot1(x))
            y = jax.lax.with_sharding_constraint(y, P("data", "model"))
            z = y @ self.w2
            return jax.lax.with_sharding_constraint(z, P("data", None))

    model = DotReluDot(16, rngs)

    def create(model):
        return nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, x, y):
        loss, grads = nnx.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


CASE = Case(
    guide='Flax, "Scale up Flax Modules on multiple devices" (Linen and NNX)',
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[8,8]", "y": "float32[8,8]"},
    layers=(
        linear("dot1", linen="Dense_0", nnx="dot1"),
        parameter("w2", linen="W2", nnx="w2"),
    ),
    # A mesh of one device, of two and eight that share the batch, and of two by four that share the model too.
    meshes=({"data": 1, "model": 1}, {"data": 2, "model": 1}, {"data": 2, "model": 4}, {"data": 8, "model": 1}),
    rules={"batch": "data", "embed": None, "mlp": "model"},
    batch_axes={"x": ("batch",), "y": ("batch",)},
)
