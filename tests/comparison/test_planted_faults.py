"""Planted faults: each is found, by the check and at the place that the table names.

A fault is a change in the text of a case: in a builder, its train step, the layer table or the record below it. Some
need a model that the suite does not have (square kernels, attention, gates): these stand here as small cases.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import helpers
import pytest

from equiv.core.checks import CHECK_NAMES

ATTENTION = """
from equiv.case import Case
from equiv.layers import linear, parameter


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def forward(x):
        query, key, value = (hk.Linear(8, name=name)(x) for name in ("query", "key", "value"))
        scores = query @ key.swapaxes(1, 2) / jnp.sqrt(8.0)
        weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((5, 5))), scores, -1e30), axis=-1)
        x = x + hk.Linear(8, name="out")(weights @ value)
        scale, offset = (hk.get_parameter(name, [8], init=jnp.ones) for name in ("scale", "offset"))
        x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale + offset
        return x / jax.lax.stop_gradient(jnp.linalg.norm(x, axis=-1, keepdims=True))

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            query, key, value = (nn.Dense(8, name=name)(x) for name in ("query", "key", "value"))
            score = query @ key.swapaxes(1, 2) / jnp.sqrt(8.0)
            weights = nn.softmax(jnp.where(jnp.tril(jnp.ones((5, 5)), 0), score, -1e30), -1)
            y = x + nn.Dense(8, name="out")(weights @ value)
            scale = self.param("scale", nn.initializers.ones, [8])
            offset = self.param("offset", nn.initializers.ones, [8])
            y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True, ddof=0) + 1e-5)
            y = y * scale + offset
            return y / jax.lax.stop_gradient(jnp.linalg.norm(y, axis=-1, keepdims=True))

    return Attention()


CASE = Case(
    guide="none: one block of causal attention, all of whose kernels are square",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[3,5,8]"},
    layers=(
        linear("query", haiku="query", linen="query"),
        linear("key", haiku="key", linen="key"),
        linear("value", haiku="value", linen="value"),
        linear("out", haiku="out", linen="out"),
        parameter("scale", haiku="~/scale", linen="scale"),
        parameter("offset", haiku="~/offset", linen="offset"),
    ),
)
"""

GATES = """
from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def forward(x):
        linear = hk.Linear(24, name="linear")
        h = c = jnp.zeros((x.shape[0], 6))
        for step in range(x.shape[1]):
            i, g, f, o = jnp.split(linear(jnp.concatenate([x[:, step], h], axis=-1)), 4, axis=-1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h

    return hk.without_apply_rng(hk.transform(forward))


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class LSTM(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(10, 24, rngs=rngs)

        def __call__(self, x):
            hidden = cell = jnp.zeros((x.shape[0], 6))
            for step in range(x.shape[1]):
                i, g, forget, o = jnp.split(self.linear(jnp.concatenate([x[:, step], hidden], axis=-1)), 4, axis=-1)
                cell = jax.nn.sigmoid(forget + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
                hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return hidden

    return LSTM()


CASE = Case(
    guide="none: an LSTM written out, whose gates have one shape",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[3,3,4]"},
    layers=(linear("linear", haiku="linear", nnx="linear"),),
)
"""

SOURCES = {"attention": ATTENTION, "gates": GATES}
"""Cases of this file; the others are those of the suite."""

# Copies of the layers: the counters of their random state never come back.
LAYERS_COPIED = """for index in range(5):
                x = jax.tree.map(lambda leaf, index=index: leaf[index], self.blocks)(x)
            return x"""


@dataclass(frozen=True)
class Fault:
    """One planted fault: where, what changes, and who must find it.

    Attributes:
        name: of the test.
        case: of the suite, or of `SOURCES`.
        candidate: the port that is at fault.
        changes: `(old, new)` texts.
        check: the check that must find it.
        place: the `Finding.place` that must be among what that check refuses.
        clean: the checks that must not find it.
    """

    name: str
    case: str
    candidate: str
    changes: tuple[tuple[str, str], ...]
    check: str
    place: str
    clean: tuple[str, ...] = ()


def fault(name: str, target: str, change: tuple[str, ...], check: str, place: str, clean: str = "") -> Fault:
    """A row of the table.

    Args:
        name: of the test.
        target: `case/candidate`.
        change: old, new, old, new, ...
        check: who must find it.
        place: where.
        clean: who must not, as words.
    """
    case, candidate = target.split("/")
    return Fault(
        name, case, candidate, tuple(zip(change[::2], change[1::2], strict=True)), check, place, tuple(clean.split())
    )


TRAIN_ONLY = "structure outputs gradients"
"""Same function, different training."""

EVAL, TRAIN, CALL, STEP = "eval __call__: output", "train __call__: output", "call __call__: output", "train: "

LINEN_NORM = "nn.BatchNorm(momentum=0.99)(x, use_running_average=not training)"
NNX_NORM = "nnx.BatchNorm(num_features=out_features, momentum=0.99, rngs=rngs)"
LINEN_DROPOUT = "x = nn.Dropout(0.5, deterministic=not training)(x)"
LINEN_DENSE = "x = nn.Dense(self.features)(x)"
LINEN_LOSS = "optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()"
UPDATE = "lambda p, g: p - 0.1 * g"
KNOWN = 'known_differences=zero_debias("block.norm", decay=0.99)'
STALE = (
    'known_differences=(*zero_debias("block.norm", decay=0.99), __import__("equiv.core.case").case.KnownDifference('
    '"haiku", "linear/kernel", "the same", lambda v, _: v["linear/kernel"], lambda v, _: v["linear/kernel"], ""))'
)
SMOOTHED = "optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, 10), 0.1)).mean()"
ENCODE = "return self.encoder(x)"
NNX_BIAS = "return x @ self.w + self.b"
CONCAT = "x = jnp.concatenate([carry, x], axis=-1)"
MOVES = """norm, y = nn.BatchNorm(momentum=0.99), x
            x = norm(y, use_running_average=not training)
            training or norm(y, use_running_average=False)"""
OVERWRITES = """y = x @ self.w + self.b
            self.w[...] = self.w[...] / jnp.linalg.norm(self.w[...])
            return y"""
NNX_STACK = """@nnx.split_rngs(splits=num_layers)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def create_block(rngs: nnx.Rngs):
                return Block(features, features, rngs=rngs)

            self.blocks = create_block(rngs)"""
ONE_KEY = """@nnx.vmap(in_axes=(0,), out_axes=0)
            def create_block(_):
                return Block(features, features, rngs=nnx.Rngs(0))

            self.blocks = create_block(jax.numpy.arange(num_layers))"""
NORM_DIVISOR = "jax.lax.stop_gradient(jnp.linalg.norm(y, axis=-1, keepdims=True))"

FAULTS = (
    # Names, shapes, dtypes.
    fault(
        "bias_missing",
        "auto_encoder/linen",
        ("nn.Dense(self.embed_dim)", "nn.Dense(self.embed_dim, use_bias=False)"),
        "structure",
        "leaf encoder/bias",
    ),
    fault(
        "parameter_is_bfloat16",
        "dropout/nnx",
        ("nnx.Linear(dmid, dout, rngs=rngs)", "nnx.Linear(dmid, dout, param_dtype='bfloat16', rngs=rngs)"),
        "structure",
        "leaf linear/kernel",
    ),
    fault(
        "one_layer_too_few",
        "scan_over_layers/nnx",
        ("MLP(64, num_layers, rngs=rngs)", "MLP(64, num_layers=4, rngs=rngs)"),
        "structure",
        "leaf blocks.linear/kernel",
    ),
    fault(
        "parameters_shared_by_all_layers",
        "scan_over_layers/linen",
        ('variable_axes={"params": 0}', 'variable_broadcast="params"', '{"params": True, ', '{"params": False, '),
        "structure",
        "leaf blocks.linear/kernel",
    ),
    fault(
        "encoder_and_decoder_exchanged_in_the_table",
        "auto_encoder/nnx",
        ('nnx="encoder"', 'nnx="other"', 'nnx="decoder"', 'nnx="encoder"', 'nnx="other"', 'nnx="decoder"'),
        "structure",
        "leaf encoder/kernel",
    ),
    fault(
        "printed_path_is_wrong",
        "dropout/linen",
        ('"Dense_0/kernel": (256, 10)', '"Dense_1/kernel": (256, 10)'),
        "structure",
        "linen prints Dense_1/kernel",
        "randomness outputs gradients train",
    ),
    fault(
        "printed_shape_is_wrong",
        "auto_encoder/nnx",
        ('"encoder.kernel": (784, 256)', '"encoder.kernel": (256, 784)'),
        "structure",
        "nnx prints encoder.kernel",
        "outputs gradients train",
    ),
    # Leaves of the same shape.
    fault(
        "query_and_key_exchanged_in_the_table",
        "attention/linen",
        ('linen="query"', 'linen="other"', 'linen="key"', 'linen="query"', 'linen="other"', 'linen="key"'),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "value_and_out_exchanged_in_the_table",
        "attention/linen",
        ('linen="value"', 'linen="other"', 'linen="out"', 'linen="value"', 'linen="other"', 'linen="out"'),
        "gradients",
        "gradient __call__: gradient out/kernel",
        "structure",
    ),
    fault(
        "scale_and_offset_exchanged_in_the_table",
        "attention/linen",
        ('linen="scale"', 'linen="other"', 'linen="offset"', 'linen="scale"', 'linen="other"', 'linen="offset"'),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "square_kernel_transposed_in_a_stack",
        "scan_over_layers/nnx",
        ("x = self.linear(x)", "x = x @ self.linear.kernel[...].T + self.linear.bias[...]"),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "layers_in_reverse_order",
        "scan_over_layers/nnx",
        ("out_axes=nnx.Carry)", "out_axes=nnx.Carry, reverse=True)"),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "gates_in_another_order",
        "gates/nnx",
        ("i, g, forget, o =", "i, forget, g, o ="),
        "outputs",
        CALL,
        "structure",
    ),
    # Formulas.
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
        "masks_repeat_at_every_step",
        "scan_over_layers/nnx",
        ("return forward(x, self.blocks)", LAYERS_COPIED),
        "randomness",
        "nnx draws new bits",
        "structure outputs gradients train",
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
    # Scans over time.
    fault(
        "scan_over_the_batch_axis",
        "rnn_scan/linen",
        (
            "in_axes=1, out_axes=1",
            "in_axes=0, out_axes=0",
            "rnn.initial_state(x.shape[0])",
            "rnn.initial_state(x.shape[1])",
        ),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "scan_reversed",
        "rnn_scan/nnx",
        ("(nnx.Carry, 1))", "(nnx.Carry, 1), reverse=True)"),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "carry_and_input_exchanged",
        "rnn_scan/linen",
        (CONCAT, CONCAT.replace("carry, x", "x, carry")),
        "outputs",
        CALL,
        "structure",
    ),
    fault("initial_carry_of_ones", "rnn_scan/nnx", ("jnp.zeros((batch_size", "jnp.ones((batch_size"), "outputs", CALL),
    fault(
        "carry_before_the_activation",
        "rnn_scan/nnx",
        ("x = jax.nn.relu(x)\n            return x, x", "return x, jax.nn.relu(x)"),
        "outputs",
        CALL,
    ),
    # Modes.
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
    # Randomness.
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
    # Gradients.
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
    # Precision: the same function, but more rounding than float32 explains.
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
    # State.
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
    # Training.
    fault(
        "learning_rate_doubled",
        "dropout/linen",
        (UPDATE, UPDATE.replace("0.1", "0.2")),
        "train",
        f"{STEP}linear/kernel",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "step_goes_uphill",
        "dropout/nnx",
        (UPDATE, UPDATE.replace("-", "+")),
        "train",
        f"{STEP}block.linear/kernel",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "loss_summed_in_the_step",
        "batch_norm/linen",
        (LINEN_LOSS, LINEN_LOSS.replace("mean", "sum")),
        "train",
        f"{STEP}linear/bias",
        TRAIN_ONLY,
    ),
    fault(
        "labels_smoothed_in_the_step",
        "dropout/nnx",
        (LINEN_LOSS, SMOOTHED),
        "train",
        f"{STEP}linear/bias",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "biases_not_trained",
        "dropout/linen",
        (UPDATE, f"{UPDATE} if p.ndim > 1 else p"),
        "train",
        f"{STEP}linear/bias",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "weight_decay_in_the_step",
        "stateful_linear/nnx",
        (UPDATE, "lambda p, g: p - 0.1 * (g + 1e-4 * p)"),
        "train",
        f"{STEP}linear/w",
        TRAIN_ONLY,
    ),
    fault(
        "statistics_dropped_by_the_step",
        "batch_norm/linen",
        ("return params, new_batch_stats", "return params, batch_stats"),
        "train",
        f"{STEP}block.norm/mean",
        TRAIN_ONLY,
    ),
    fault(
        "count_dropped_by_the_step",
        "stateful_linear/linen",
        ("grads, counts = jax.grad", "grads, _ = jax.grad"),
        "train",
        f"{STEP}count",
        TRAIN_ONLY,
    ),
    fault(
        "step_trains_in_eval_mode",
        "batch_norm/linen",
        ("apply(variables, inputs, training=True", "apply(variables, inputs, training=False"),
        "train",
        f"{STEP}block.norm/var",
        TRAIN_ONLY,
    ),
    fault(
        "count_starts_at_zero",
        "counter/nnx",
        ("Counter(jnp.ones(", "Counter(jnp.zeros("),
        "train",
        f"{STEP}counter",
        TRAIN_ONLY,
    ),
    fault(
        "adam_b1_0.8",
        "optimizer_adam/linen",
        ("optax.adam(1e-3)", "optax.adam(1e-3, b1=0.8)"),
        "train",
        f"{STEP}opt_state/mu/linear1/w",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "adam_epsilon_1e-7",
        "optimizer_adam/nnx",
        ("optax.adam(1e-3)", "optax.adam(1e-3, eps=1e-7)"),
        "train",
        f"{STEP}linear2/w",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "adamw_for_adam",
        "train_state_dropout/linen",
        ("optax.adam(1e-3)", "optax.adamw(1e-3)"),
        "train",
        f"{STEP}linear/kernel",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "optimizer_state_not_carried",
        "optimizer_adam/linen",
        ("updates, opt_state = tx.update", "updates, _ = tx.update"),
        "train",
        f"{STEP}opt_state/mu/linear1/w",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "step_not_counted",
        "train_state_dropout/linen",
        (
            "state = state.apply_gradients(grads=grads)",
            "state = state.apply_gradients(grads=grads).replace(step=state.step)",
        ),
        "train",
        f"{STEP}step",
        f"{TRAIN_ONLY} randomness",
    ),
    fault(
        "reported_loss_is_a_sum",
        "optimizer_adam/linen",
        ("return params, new_batch_stats, opt_state, loss", "return params, new_batch_stats, opt_state, 50 * loss"),
        "train",
        f"{STEP}step output/0",
        f"{TRAIN_ONLY} randomness state",
    ),
    # Known differences.
    fault(
        "known_difference_with_wrong_decay",
        "batch_norm/linen",
        (KNOWN, KNOWN.replace("0.99", "0.9")),
        "train",
        f"{STEP}block.norm/mean",
        TRAIN_ONLY,
    ),
    fault(
        "known_difference_is_stale",
        "batch_norm/nnx",
        (KNOWN, STALE),
        "train",
        f"{STEP}linear/kernel",
        f"{TRAIN_ONLY} state",
    ),
    fault(
        "known_difference_is_missing",
        "batch_norm/linen",
        (KNOWN, "known_differences=()"),
        "train",
        f"{STEP}block.norm/var",
        TRAIN_ONLY,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run: which checks ran, and the places that each of them refused, with precision and note."""

    ran: tuple[str, ...]
    refused: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases of this file, as files."""
    made = tmp_path_factory.mktemp("cases")
    for name, source in SOURCES.items():
        (made / f"{name}.py").write_text(source)
    return made


@cache
def outcome(planted: Fault, folder: Path) -> Outcome:
    """Every check of a fault, once per session."""
    name = str(folder / planted.case) if planted.case in SOURCES else planted.case
    results = helpers.judge(name, planted.candidate, helpers.patched(name, *planted.changes))
    refused = {
        name: {f.place: f"{f.precision}: {f.note}" for f in found} for name, found in helpers.refuted(results).items()
    }
    return Outcome(tuple(results), refused)


SLOW = (
    *("step_not_counted", "adam_epsilon_1e-7", "adam_b1_0.8", "optimizer_state_not_carried"),
    *("activations_pass_through_float16", "known_difference_is_stale", "lora_scaled_by_rank"),
    *("layer_computes_in_bfloat16", "batch_norm_epsilon_1.1e-5", "square_kernel_transposed_in_a_stack"),
)
"""Each beside a quicker fault of the same check."""


@pytest.mark.parametrize(
    "planted",
    [pytest.param(one, marks=pytest.mark.slow) if one.name in SLOW else one for one in FAULTS],
    ids=lambda planted: planted.name,
)
def test_fault_is_found_by_its_check_at_its_place(planted: Fault, folder: Path) -> None:
    """The named check refuses the named place; checks that cannot see the fault stay clean."""
    found = outcome(planted, folder)
    assert planted.place in found.refused.get(planted.check, {}), found.refused
    assert set(planted.clean) <= set(found.ran)
    assert not set(planted.clean) & set(found.refused), found.refused


@pytest.mark.parametrize("name", SOURCES)
def test_case_of_this_file_without_a_fault_is_the_same(name: str, folder: Path) -> None:
    """What the faults of this file's own cases show is the fault, not the case."""
    candidate = {"attention": "linen", "gates": "nnx"}[name]
    results = helpers.judge(str(folder / name), candidate, helpers.patched(str(folder / name)))
    assert not helpers.refuted(results)
    assert {"structure", "outputs", "gradients", "train"} <= set(results)


def test_there_are_at_least_thirty_faults_with_own_names() -> None:
    """The table is long enough, and no row hides another."""
    assert len({planted.name for planted in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("check", [name for name in CHECK_NAMES if name != "compiled"])
def test_check_finds_a_fault_that_no_other_check_finds(check: str, folder: Path) -> None:
    """A check without such a fault would be a check that may as well be left out.

    A fault of the compiler is in no case's text: those of `compiled` are planted in `test_user_runs.py`.
    """
    mine = (outcome(planted, folder) for planted in FAULTS if planted.check == check)
    assert any(set(found.refused) == {check} and "train" in found.ran for found in mine)


def named(name: str) -> Fault:
    """A row of the table."""
    return next(planted for planted in FAULTS if planted.name == name)


def test_difference_below_float32_is_found_in_float64(folder: Path) -> None:
    """A factor of 1 + 2e-7 is within the rounding of float32."""
    assert outcome(named("relative_error_2e-7"), folder).refused["outputs"][CALL].startswith("float64: ")


@pytest.mark.parametrize(
    "name", ["layer_computes_in_bfloat16", "layer_computes_in_float16", "activations_pass_through_float16"]
)
def test_too_much_rounding_is_distinguished_from_another_function(name: str, folder: Path) -> None:
    """A layer that rounds to half precision is said to be the same function, rounded too much."""
    assert "rounds more" in outcome(named(name), folder).refused["outputs"][EVAL]


@pytest.mark.parametrize(
    ("name", "words"),
    [("known_difference_with_wrong_decay", "does not hold"), ("known_difference_is_stale", "stale")],
)
def test_known_difference_is_said_to_be_wrong_or_stale(name: str, words: str, folder: Path) -> None:
    """A formula that does not hold and one that is no longer needed have different messages."""
    planted = named(name)
    assert words in outcome(planted, folder).refused["train"][planted.place]
