"""State that moves otherwise, or when it must not."""

from comparison.planted_fault import CALL, NNX_BIAS, fault

LINEN_NORM = "nn.BatchNorm(momentum=0.99)(x, use_running_average=not training)"
MOVES = """norm, y = nn.BatchNorm(momentum=0.99), x
            x = norm(y, use_running_average=not training)
            training or norm(y, use_running_average=False)"""
OVERWRITES = """y = x @ self.w + self.b
            self.w[...] = self.w[...] / jnp.linalg.norm(self.w[...])
            return y"""

FAULTS = (
    fault(
        "momentum_flipped",
        "batch_norm/nnx",
        ("momentum=0.99, rngs", "momentum=0.01, rngs"),
        "state",
        "train __call__: state block.norm/mean",
        "structure outputs gradients",
    ),
    fault(
        "momentum_0.9",
        "mlp/linen",
        ("nn.BatchNorm()", "nn.BatchNorm(momentum=0.9)"),
        "state",
        "train __call__: state bn/var",
        "structure outputs gradients",
    ),
    fault(
        "statistics_move_in_eval_mode",
        "batch_norm/linen",
        (f"x = {LINEN_NORM}", MOVES),
        "state",
        "eval __call__: state block.norm/mean",
        "structure outputs gradients train",
    ),
    fault(
        "count_not_incremented",
        "counter/linen",
        ("counter.value += 1", "pass"),
        "state",
        "call __call__: state counter",
        "structure outputs gradients",
    ),
    fault(
        "count_incremented_by_two",
        "counter/nnx",
        ("self.counter[...] += 1\n            return output", "self.counter[...] += 2\n            return output"),
        "state",
        "call __call__: state counter",
        "structure outputs gradients",
    ),
    fault(
        "count_incremented_before_use",
        "counter/nnx",
        (
            "output = x + self.multiplier * self.counter[...]\n\n            self.counter[...] += 1",
            "self.counter[...] += 1\n            output = x + self.multiplier * self.counter[...]",
        ),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "call_overwrites_its_weights",
        "custom_linear/nnx",
        (NNX_BIAS, OVERWRITES),
        "state",
        "call __call__: state linear/w",
        "structure outputs gradients",
    ),
)
