"""A small model with a rule of derivatives and an optimizer of several parts, as source, with faults."""

SOURCE = '''
"""A norm between two layers, a rule of its own, and Adam with clipped gradients: in Haiku and in Linen."""

import jax
import jax.numpy as jnp
import optax
from equiv.case import Case
from equiv.layers import layer_norm, linear

def make_rule(share):
    @jax.custom_vjp
    def damped(x):
        return x

    damped.defvjp(lambda x: (x, None), lambda _, g: (share * g,))
    return damped

def train(apply, tx):
    def step(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(lambda params: ((apply({"params": params}, x) - y) ** 2).mean())(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step

def haiku():
    import haiku as hk

    damped = make_rule(0.5)

    def forward(x):
        x = jnp.tanh(hk.Linear(4, name="first")(x))
        x = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)
        return hk.Linear(2, name="last")(damped(x))

    model = hk.without_apply_rng(hk.transform(forward))
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1),
        optax.scale(-1e-2),
    )
    return model, train(lambda variables, x: model.apply(variables["params"], x), tx), tx.init

def linen():
    from flax import linen as nn

    damped = make_rule(0.5)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Dense(4, name="first")(x))
            x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
            return nn.Dense(2, name="last")(damped(x))

    model = Model()
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1),
        optax.scale(-1e-2),
    )
    return model, train(model.apply, tx), tx.init

CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[3,4]", "y": "float32[3,2]"},
    methods={"__call__": ("x",)},
    loss=lambda outputs, batch: ((outputs - batch["y"]) ** 2).mean(),
    layers=(
        linear("first", haiku="first", linen="first"),
        layer_norm("norm", haiku="norm", linen="norm"),
        linear("last", haiku="last", linen="last"),
    ),
    steps=1,
)
'''

FORWARD = {
    "epsilon": ("epsilon=1e-5", "epsilon=1e-3", "epsilon 1e-05 in place of 0.001"),
    "function": ("jnp.tanh(nn.Dense", "jax.nn.relu(nn.Dense", "tanh in place of relu"),
}

BEHIND = {
    "rate": ("scale(-1e-2)", "scale(-1e-3)", "0.01 in place of 0.001"),
    "b2": ("scale_by_adam()", "scale_by_adam(b2=0.9)", "b2 0.999 in place of 0.9"),
    "clipping": ("norm(0.1)", "norm(0.4)", "the clipping norm 0.1 in place of 0.4"),
    "held": ('name="last")(damped(x))', 'name="last")(damped(jax.lax.stop_gradient(x)))', "no `stop_gradient`"),
    "rule": ("make_rule(0.5)", "make_rule(-0.5)", "the factor 0.5 in place of -0.5"),
}


def plant(*faults: tuple[str, str, str]) -> str:
    """The source with faults in the second builder."""
    start = SOURCE.index("def linen")
    first, second = SOURCE[:start], SOURCE[start:]
    for old, new, _ in faults:
        assert old in second
        second = second.replace(old, new, 1)
    return first + second
