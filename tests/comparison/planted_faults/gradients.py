"""The same outputs with other gradients."""

from comparison.planted_fault import LINEN_DROPOUT, NNX_BIAS, fault

NORM_DIVISOR = "jax.lax.stop_gradient(jnp.linalg.norm(y, axis=-1, keepdims=True))"

FAULTS = (
    fault(
        "encoder_gets_no_gradient",
        "auto_encoder/linen",
        ("x = self.encode(x)", "x = __import__('jax').lax.stop_gradient(self.encode(x))"),
        "gradients",
        "gradient __call__: gradient encoder/kernel",
        "structure outputs",
    ),
    fault(
        "lora_freezes_the_base_layer",
        "lora/nnx",
        ("self.linear(x) + x @ self.A", "jax.lax.stop_gradient(self.linear(x)) + x @ self.A"),
        "gradients",
        "gradient __call__: gradient linear1.linear/w",
        "structure randomness outputs",
    ),
    fault(
        "input_gets_no_gradient",
        "custom_linear/nnx",
        (NNX_BIAS, NNX_BIAS.replace("x @", "jax.lax.stop_gradient(x) @")),
        "gradients",
        "gradient __call__: gradient batch/x",
        "structure outputs train",
    ),
    fault(
        "stop_gradient_missing",
        "attention/linen",
        (NORM_DIVISOR, "jnp.linalg.norm(y, axis=-1, keepdims=True)"),
        "gradients",
        "gradient __call__: gradient scale",
        "structure outputs",
    ),
    fault(
        "gradient_is_not_finite",
        "dropout/linen",
        (
            f"{LINEN_DROPOUT}\n            x = jax.nn.relu(x)",
            f"{LINEN_DROPOUT}\n            x = jax.numpy.where(x > 0, jax.numpy.sqrt(x) ** 2, 0)",
        ),
        "gradients",
        "gradient __call__: gradient block.linear/kernel",
        "structure randomness outputs",
    ),
)
