"""Another formula: an epsilon, an activation, attention, a gate, a method."""

from comparison.planted_fault import CALL, EVAL, NNX_BIAS, TRAIN, fault

ENCODE = "return self.encoder(x)"

FAULTS = (
    fault(
        "batch_norm_epsilon_1e-3",
        "batch_norm/linen",
        ("nn.BatchNorm(momentum=0.99)", "nn.BatchNorm(momentum=0.99, epsilon=1e-3)"),
        "outputs",
        EVAL,
        "structure",
    ),
    fault(
        "batch_norm_epsilon_1.1e-5",
        "batch_norm/nnx",
        ("momentum=0.99, rngs", "momentum=0.99, epsilon=1.1e-5, rngs"),
        "outputs",
        TRAIN,
        "structure",
    ),
    fault(
        "layer_norm_epsilon_1e-6",
        "attention/linen",
        ("ddof=0) + 1e-5", "ddof=0) + 1e-6"),
        "outputs",
        CALL,
    ),
    fault("variance_over_n_minus_one", "attention/linen", ("ddof=0", "ddof=1"), "outputs", CALL),
    fault("relu_for_gelu", "mlp/linen", ("nn.gelu(", "nn.relu("), "outputs", EVAL, "structure randomness"),
    fault("relu6_for_relu", "rnn_scan/linen", ("x = jax.nn.relu(x)", "x = jax.nn.relu6(x)"), "outputs", CALL),
    fault(
        "exact_gelu_for_its_approximation",
        "mlp/nnx",
        ("nnx.gelu(self.dropout(self.bn(self.linear1(x))))", "nnx.gelu(self.dropout(self.bn(self.linear1(x))), False)"),
        "outputs",
        EVAL,
    ),
    fault(
        "relative_error_2e-7",
        "custom_linear/nnx",
        (NNX_BIAS, f"{NNX_BIAS.replace('x @', '(x @')}) * (1 + 2e-7)"),
        "outputs",
        CALL,
    ),
    fault(
        "attention_not_scaled",
        "attention/linen",
        (" / jnp.sqrt(8.0)\n            weights", "\n            weights"),
        "outputs",
        CALL,
    ),
    fault(
        "mask_lets_one_future_step_through",
        "attention/linen",
        ("jnp.ones((5, 5)), 0)", "jnp.ones((5, 5)), 1)"),
        "outputs",
        CALL,
    ),
    fault("softmax_over_queries", "attention/linen", ("score, -1e30), -1)", "score, -1e30), -2)"), "outputs", CALL),
    fault("residual_missing", "attention/linen", ("y = x + nn.Dense", "y = nn.Dense"), "outputs", CALL),
    fault("forget_bias_missing", "gates/nnx", ("sigmoid(forget + 1)", "sigmoid(forget)"), "outputs", CALL),
    fault("tanh_on_the_cell_missing", "gates/nnx", ("jnp.tanh(cell)", "cell"), "outputs", CALL),
    fault("lora_scaled_by_rank", "lora/nnx", ("x @ self.A @ self.B", "x @ self.A @ self.B / 4"), "outputs", EVAL),
    fault("lora_base_layer_missing", "lora/nnx", ("self.linear(x) + x @ self.A", "x @ self.A"), "outputs", EVAL),
    fault(
        "activation_in_decode_only",
        "auto_encoder/linen",
        ("return self.decoder(x)", "return nn.sigmoid(self.decoder(x))", "x = self.decode(x)", "x = self.decoder(x)"),
        "outputs",
        "call decode: output",
        "structure train",
    ),
    fault(
        "encode_is_the_whole_model",
        "auto_encoder/nnx",
        (ENCODE, "return self.decoder(self.encoder(x))", "x = self.encode(x)", "x = self.encoder(x)"),
        "outputs",
        "call encode: output",
        "structure train",
    ),
)
