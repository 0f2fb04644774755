"""The same function, but more rounding than float32 explains."""

from comparison.planted_fault import CALL, EVAL, fault

LINEN_DENSE = "x = nn.Dense(self.features)(x)"

FAULTS = (
    fault(
        "layer_computes_in_bfloat16",
        "dropout/linen",
        (LINEN_DENSE, LINEN_DENSE.replace("features)", "features, dtype='bfloat16')")),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "layer_computes_in_float16",
        "dropout/nnx",
        ("nnx.Linear(in_features, out_features, rngs", "nnx.Linear(in_features, out_features, dtype='float16', rngs"),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "activations_pass_through_float16",
        "batch_norm/linen",
        ("x = jax.nn.relu(x)", "x = jax.nn.relu(x).astype('float16').astype('float32')"),
        "outputs",
        EVAL,
        "structure state",
    ),
    fault(
        "output_is_float16",
        "custom_linear/linen",
        ("return x @ w + b", "return (x @ w + b).astype('float16')"),
        "outputs",
        CALL,
        "structure",
    ),
)
