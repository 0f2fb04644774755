"""Dropout at another place or rate, and keys that are used twice."""

from comparison.planted_fault import LINEN_DROPOUT, TRAIN, fault

# Copies of the layers: the counters of their random state never come back.
LAYERS_COPIED = """for index in range(5):
                x = jax.tree.map(lambda leaf, index=index: leaf[index], self.blocks)(x)
            return x"""
NNX_STACK = """@nnx.split_rngs(splits=num_layers)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def create_block(rngs: nnx.Rngs):
                return Block(features, features, rngs=rngs)

            self.blocks = create_block(rngs)"""
ONE_KEY = """@nnx.vmap(in_axes=(0,), out_axes=0)
            def create_block(_):
                return Block(features, features, rngs=nnx.Rngs(0))

            self.blocks = create_block(jax.numpy.arange(num_layers))"""

FAULTS = (
    fault(
        "dropout_after_the_gelu",
        "mlp/linen",
        (
            "nn.gelu(self.dropout(x, deterministic=not training))",
            "self.dropout(nn.gelu(x), deterministic=not training)",
        ),
        "outputs",
        TRAIN,
        "structure randomness",
    ),
    fault(
        "dropout_rate_0.4",
        "dropout/nnx",
        ("nnx.Dropout(0.5", "nnx.Dropout(0.4"),
        "outputs",
        TRAIN,
        "structure randomness",
    ),
    fault(
        "dropout_not_scaled",
        "dropout/linen",
        (LINEN_DROPOUT, f"{LINEN_DROPOUT} * (0.5 if training else 1.0)"),
        "outputs",
        TRAIN,
        "structure randomness",
    ),
    fault(
        "dropout_before_the_linear_layer",
        "dropout/nnx",
        ("x = self.linear(x)\n            x = self.dropout(x)", "x = self.dropout(x)\n            x = self.linear(x)"),
        "randomness",
        "train __call__: draw/0",
        "structure",
    ),
    fault(
        "dropout_missing",
        "dropout/linen",
        ("deterministic=not training", "deterministic=True"),
        "randomness",
        "train __call__: draw/0",
        "structure",
    ),
    fault(
        "dropout_in_eval_mode_too",
        "dropout/linen",
        ("deterministic=not training", "deterministic=False"),
        "randomness",
        "eval __call__: draw/0",
        "structure train",
    ),
    fault(
        "dropout_drawn_once_for_all_examples",
        "dropout/linen",
        ("nn.Dropout(0.5, ", "nn.Dropout(0.5, broadcast_dims=(0,), "),
        "randomness",
        "step: draw/0",
        "structure",
    ),
    fault(
        "one_key_for_all_layers",
        "scan_over_layers/nnx",
        (NNX_STACK, ONE_KEY),
        "randomness",
        "nnx draws new bits",
        "structure outputs gradients train",
    ),
    fault(
        "one_draw_for_all_layers",
        "scan_over_layers/linen",
        ('"dropout": True', '"dropout": False'),
        "randomness",
        "step: draw/1",
        "structure",
    ),
    fault(
        "one_key_for_all_steps",
        "dropout/linen",
        ('rngs={"dropout": key}', 'rngs={"dropout": jax.random.key(0)}'),
        "randomness",
        "step: draw/0",
        "structure outputs gradients",
    ),
    fault(
        "count_of_draws_not_kept",
        "train_state_dropout/nnx",
        ("state = state.replace(other_variables=other_variables)", ""),
        "randomness",
        "nnx draws new bits",
        "structure outputs gradients train",
    ),
    fault(
        "masks_repeat_at_every_step",
        "scan_over_layers/nnx",
        ("return forward(x, self.blocks)", LAYERS_COPIED),
        "randomness",
        "nnx draws new bits",
        "structure outputs gradients train",
    ),
)
