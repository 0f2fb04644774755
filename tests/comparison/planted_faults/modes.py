"""Train and eval mode mixed up."""

from comparison.planted_fault import EVAL, LINEN_DROPOUT, TRAIN, fault

FAULTS = (
    fault(
        "eval_mode_uses_batch_statistics",
        "batch_norm/linen",
        ("use_running_average=not training", "use_running_average=False"),
        "outputs",
        EVAL,
        "structure train",
    ),
    fault(
        "train_mode_uses_running_statistics",
        "batch_norm/nnx",
        ("x = self.batchnorm(x)", "x = self.batchnorm(x, use_running_average=True)"),
        "outputs",
        TRAIN,
    ),
    fault(
        "eval_mode_scaled_by_keep_rate",
        "dropout/linen",
        (LINEN_DROPOUT, f"{LINEN_DROPOUT} * (1.0 if training else 0.5)"),
        "outputs",
        EVAL,
        "structure randomness train",
    ),
    fault(
        "shift_that_the_loss_does_not_see",
        "dropout/linen",
        ("x = nn.Dense(self.dout)(x)", "x = nn.Dense(self.dout)(x) + 1.0"),
        "outputs",
        EVAL,
        "structure randomness gradients train",
    ),
)
