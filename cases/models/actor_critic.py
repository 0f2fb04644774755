"""Actor-critic: one torso with two heads, returned as a pair, and a loss of three terms; computed in bfloat16."""

from equiv.case import Case
from equiv.layers import layer_norm, linear


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    class ActorCritic(hk.Module):
        def __init__(self, num_actions: int, width: int, name=None):
            super().__init__(name=name)
            self.torso = hk.nets.MLP([width, width], activation=jnp.tanh, activate_final=True, name="torso")
            self.policy = hk.Linear(num_actions, name="policy")
            self.value = hk.Linear(1, name="value")

        def __call__(self, observation):
            x = self.torso(hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="norm")(observation))
            return self.policy(x), jnp.squeeze(self.value(x), axis=-1)

    half = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    norm = jmp.get_policy("params=float32,compute=float32,output=bfloat16")

    def forward(observation):
        with (
            hk.mixed_precision.push_policy(ActorCritic, half),
            hk.mixed_precision.push_policy(hk.LayerNorm, norm),
        ):
            return ActorCritic(6, 64)(observation)

    model = hk.without_apply_rng(hk.transform(forward))
    schedule = optax.linear_schedule(3e-3, 0.0, transition_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule, weight_decay=1e-4))

    @jax.jit
    def train_step(params, opt_state, observation, action, returns):
        def loss_fn(params):
            logits, value = model.apply(params, observation)
            log_probs = jax.nn.log_softmax(logits)
            advantage = jax.lax.stop_gradient(returns - value)
            chosen = jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]
            policy_loss = -jnp.mean(chosen * advantage)
            value_loss = 0.5 * jnp.mean(jnp.square(returns - value))
            entropy = -jnp.mean(jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1))
            return policy_loss + 0.5 * value_loss - 0.01 * entropy

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, tx.init


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class ActorCritic(nn.Module):
        num_actions: int
        width: int
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, observation):
            x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype)(observation.astype(self.dtype))
            for _ in range(2):
                x = nn.tanh(nn.Dense(self.width, dtype=self.dtype)(x))
            logits = nn.Dense(self.num_actions, dtype=self.dtype, name="policy")(x)
            value = nn.Dense(1, dtype=self.dtype, name="value")(x)
            return logits.astype(jnp.float32), value.squeeze(-1).astype(jnp.float32)

    model = ActorCritic(num_actions=6, width=64)
    schedule = optax.linear_schedule(3e-3, 0.0, transition_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule, weight_decay=1e-4))

    @jax.jit
    def train_step(params, opt_state, observation, action, returns):
        def loss_fn(params):
            logits, value = model.apply({"params": params}, observation)
            advantage = jax.lax.stop_gradient(returns - value)
            policy_loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, action) * advantage)
            value_loss = jnp.mean(optax.l2_loss(value, returns))
            entropy = jnp.mean(optax.softmax_cross_entropy(logits, jax.nn.softmax(logits)))
            return policy_loss + 0.5 * value_loss - 0.01 * entropy

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, tx.init


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class ActorCritic(nnx.Module):
        def __init__(self, num_inputs: int, num_actions: int, width: int, *, rngs: nnx.Rngs):
            make = {"dtype": jnp.bfloat16, "rngs": rngs}
            self.norm = nnx.LayerNorm(num_inputs, epsilon=1e-5, use_fast_variance=False, **make)
            self.torso = nnx.Sequential(
                nnx.Linear(num_inputs, width, **make), nnx.tanh, nnx.Linear(width, width, **make), nnx.tanh
            )
            self.actor = nnx.Linear(width, num_actions, **make)
            self.critic = nnx.Linear(width, 1, **make)

        def __call__(self, observation: jax.Array):
            x = self.torso(self.norm(observation.astype(jnp.bfloat16)))
            return self.actor(x).astype(jnp.float32), self.critic(x)[:, 0].astype(jnp.float32)

    model = ActorCritic(17, 6, 64, rngs=rngs)
    schedule = optax.linear_schedule(3e-3, 0.0, transition_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule, weight_decay=1e-4))

    def create(model):
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, observation, action, returns):
        def loss_fn(model):
            logits, value = model(observation)
            log_probs = jax.nn.log_softmax(logits)
            advantage = jax.lax.stop_gradient(returns - value)
            policy_loss = -jnp.mean(log_probs[jnp.arange(len(action)), action] * advantage)
            value_loss = 0.5 * jnp.mean((value - returns) ** 2)
            entropy = -jnp.mean(jnp.sum(jax.nn.softmax(logits) * log_probs, axis=-1))
            return policy_loss + 0.5 * value_loss - 0.01 * entropy

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import jax.numpy as jnp
    import optax

    logits, value = outputs
    chosen = optax.softmax_cross_entropy_with_integer_labels(logits, batch["action"])
    return jnp.mean(chosen * batch["returns"]) + jnp.mean(optax.l2_loss(value, batch["returns"]))


CASE = Case(
    guide="none: actor-critic of Mnih et al., 2016 (arXiv:1602.01783)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"observation": "float32[16,17]", "action": "int32[16]:6", "returns": "float32[16]"},
    methods={"__call__": ("observation",)},
    loss=loss,
    layers=(
        layer_norm("norm", haiku="actor_critic/norm", linen="LayerNorm_0", nnx="norm"),
        linear("torso.linear_0", haiku="actor_critic/~/torso/~/linear_0", linen="Dense_0", nnx="torso.layers.0"),
        linear("torso.linear_1", haiku="actor_critic/~/torso/~/linear_1", linen="Dense_1", nnx="torso.layers.2"),
        linear("policy", haiku="actor_critic/~/policy", linen="policy", nnx="actor"),
        linear("value", haiku="actor_critic/~/value", linen="value", nnx="critic"),
    ),
)
