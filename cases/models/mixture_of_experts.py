"""Mixture of experts: each token goes to the two best of four experts, with a loss that balances them; in bfloat16."""

from equiv.case import Case
from equiv.layers import linear, parameter, rms_norm

WIDTH, HIDDEN, EXPERTS, TOP, DEPTH, CLASSES = 16, 32, 4, 2, 4, 5


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    class Router(hk.Module):
        def __call__(self, x):
            probs = jax.nn.softmax(hk.Linear(EXPERTS, with_bias=False, name="gate")(x))
            gates, chosen = jax.lax.top_k(probs, TOP)
            mask = jax.nn.one_hot(chosen, EXPERTS)
            balance = EXPERTS * jnp.sum(jnp.mean(mask[:, 0], axis=0) * jnp.mean(probs, axis=0))
            gates = gates / jnp.sum(gates, axis=-1, keepdims=True)
            return jnp.einsum("tk,tke->te", gates, mask), balance

    class Experts(hk.Module):
        def __call__(self, x, weights):
            init = hk.initializers.VarianceScaling()
            w_in = hk.get_parameter("w_in", (EXPERTS, WIDTH, HIDDEN), x.dtype, init=init)
            w_out = hk.get_parameter("w_out", (EXPERTS, HIDDEN, WIDTH), x.dtype, init=init)
            hidden = jax.nn.silu(jnp.einsum("td,edh->teh", x, w_in))
            return jnp.einsum("te,ted->td", weights, jnp.einsum("teh,ehd->ted", hidden, w_out))

    class Model(hk.Module):
        def __call__(self, x):
            balance = 0.0
            x = hk.Linear(WIDTH, name="embed")(x)
            for layer in range(DEPTH):
                h = hk.RMSNorm(axis=-1, name=f"norm_{layer}")(x)
                weights, one = Router(name=f"router_{layer}")(h)
                x = x + Experts(name=f"experts_{layer}")(h, weights.astype(h.dtype))
                balance = balance + one
            return hk.Linear(CLASSES, name="head")(x), balance / DEPTH

    half = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")
    full = jmp.get_policy("float32")

    def forward(x):
        with (
            hk.mixed_precision.push_policy(Model, half.with_output_dtype(jnp.float32)),
            hk.mixed_precision.push_policy(Router, full),
            hk.mixed_precision.push_policy(hk.RMSNorm, full.with_output_dtype(jnp.bfloat16)),
        ):
            return Model(name="model")(x)

    model = hk.without_apply_rng(hk.transform(forward))
    schedule = optax.warmup_exponential_decay_schedule(1e-4, 3e-3, 2, transition_steps=10, decay_rate=0.9)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))

    @jax.jit
    def train_step(params, opt_state, x, labels):
        def loss_fn(params):
            logits, balance = model.apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + 0.01 * balance

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, tx.init


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training import train_state

    class Expert(nn.Module):
        dtype: jnp.dtype

        @nn.compact
        def __call__(self, x):
            h = nn.silu(nn.Dense(HIDDEN, use_bias=False, dtype=self.dtype, name="up")(x))
            return nn.Dense(WIDTH, use_bias=False, dtype=self.dtype, name="down")(h)

    class MoE(nn.Module):
        dtype: jnp.dtype

        @nn.compact
        def __call__(self, x):
            probs = nn.softmax(nn.Dense(EXPERTS, use_bias=False, name="router")(x.astype(jnp.float32)))
            gates, chosen = jax.lax.top_k(probs, TOP)
            gates /= gates.sum(-1, keepdims=True)
            weights = jnp.zeros_like(probs).at[jnp.arange(len(x))[:, None], chosen].set(gates)
            balance = EXPERTS * jnp.sum(nn.one_hot(chosen[:, 0], EXPERTS).mean(0) * probs.mean(0))
            experts = nn.vmap(
                Expert, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=1,
                axis_size=EXPERTS,
            )  # fmt: skip
            y = experts(self.dtype, name="experts")(x)
            return jnp.einsum("te,ted->td", weights.astype(self.dtype), y), balance

    class Model(nn.Module):
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(WIDTH, dtype=self.dtype, name="embed")(x)
            losses = []
            for layer in range(DEPTH):
                y = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype, name=f"norm_{layer}")(x)
                y, balance = MoE(self.dtype, name=f"moe_{layer}")(y)
                x = x + y
                losses.append(balance)
            return nn.Dense(CLASSES, dtype=self.dtype, name="head")(x).astype(jnp.float32), sum(losses) / DEPTH

    model = Model()

    def create(params):
        schedule = optax.warmup_exponential_decay_schedule(1e-4, 3e-3, 2, transition_steps=10, decay_rate=0.9)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(state, x, labels):
        def loss_fn(params):
            logits, balance = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + 0.01 * balance

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class MoE(nnx.Module):
        def __init__(self, dtype, rngs: nnx.Rngs):
            self.dtype = dtype
            self.gate = nnx.Linear(WIDTH, EXPERTS, use_bias=False, rngs=rngs)
            init = nnx.initializers.lecun_normal(batch_axis=0)
            self.w_up = nnx.Param(init(rngs.params(), (EXPERTS, WIDTH, HIDDEN)))
            self.w_down = nnx.Param(init(rngs.params(), (EXPERTS, HIDDEN, WIDTH)))

        def __call__(self, x):
            probs = jax.nn.softmax(self.gate(x.astype(jnp.float32)), axis=-1)
            gates, chosen = jax.lax.top_k(probs, TOP)
            gates = gates / gates.sum(axis=-1, keepdims=True)
            mask = jax.nn.one_hot(chosen, EXPERTS)
            weights = jnp.sum(gates[..., None] * mask, axis=1).astype(self.dtype)
            up, down = self.w_up.astype(self.dtype), self.w_down.astype(self.dtype)
            y = jnp.einsum("teh,ehd->ted", nnx.silu(jnp.einsum("td,edh->teh", x, up)), down)
            balance = EXPERTS * jnp.dot(mask[:, 0].mean(axis=0), probs.mean(axis=0))
            return jnp.einsum("te,ted->td", weights, y), balance

    class Model(nnx.Module):
        def __init__(self, inputs: int, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            self.embed = nnx.Linear(inputs, WIDTH, dtype=dtype, rngs=rngs)
            self.norms = nnx.List([nnx.RMSNorm(WIDTH, epsilon=1e-5, dtype=dtype, rngs=rngs) for _ in range(DEPTH)])
            self.moes = nnx.List([MoE(dtype, rngs) for _ in range(DEPTH)])
            self.head = nnx.Linear(WIDTH, CLASSES, dtype=dtype, rngs=rngs)

        def __call__(self, x):
            x, total = self.embed(x), 0.0
            for norm, moe in zip(self.norms, self.moes, strict=True):
                y, balance = moe(norm(x))
                x, total = x + y, total + balance
            return self.head(x).astype(jnp.float32), total / DEPTH

    model = Model(12, rngs=rngs)

    def create(model):
        schedule = optax.warmup_exponential_decay_schedule(1e-4, 3e-3, 2, transition_steps=10, decay_rate=0.9)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, x, labels):
        def loss_fn(model):
            logits, balance = model(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + 0.01 * balance

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import optax

    logits, balance = outputs
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean() + 0.01 * balance


def layer_rows(layer):
    haiku, linen, nnx = f"model/experts_{layer}", f"moe_{layer}", f"moes.{layer}"
    yield rms_norm(f"norm_{layer}", haiku=f"model/norm_{layer}", linen=f"norm_{layer}", nnx=f"norms.{layer}")
    yield linear(f"router_{layer}", haiku=f"model/router_{layer}/gate", linen=f"{linen}/router", nnx=f"{nnx}.gate")
    experts = f"{linen}/experts"
    yield parameter(f"up_{layer}", haiku=f"{haiku}/w_in", linen=f"{experts}/up/kernel", nnx=f"{nnx}.w_up")
    yield parameter(f"down_{layer}", haiku=f"{haiku}/w_out", linen=f"{experts}/down/kernel", nnx=f"{nnx}.w_down")


CASE = Case(
    guide="none: routing of Shazeer et al., 2017 (arXiv:1701.06538), balance of Fedus et al., 2021 (arXiv:2101.03961)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[24,12]", "labels": "int32[24]:5"},
    methods={"__call__": ("x",)},
    loss=loss,
    layers=(
        linear("embed", haiku="model/embed", linen="embed", nnx="embed"),
        *(row for layer in range(DEPTH) for row in layer_rows(layer)),
        linear("head", haiku="model/head", linen="head", nnx="head"),
    ),
)
