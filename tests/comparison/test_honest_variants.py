"""Honest variants: the same model written otherwise is refused by no check, on several seeds (`nox -s faults`: 20).

A variant changes the text of a case as somebody porting a model might: other names, another order of the same sums,
a transform around a layer, an optimizer written out. None changes the function or its training.
"""

import os
from dataclasses import dataclass

import helpers
import pytest

SEEDS = tuple(range(int(os.environ.get("EQUIV_SEEDS", "3"))))

PRODUCTS = """
from equiv.case import Case
from equiv.layers import linear, module


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import optax

    def forward(x):
        shapes = {"scale": (4,), "w": (4, 6), "a": (4, 2), "b": (2, 6), "shift": (6,)}
        scale, w, a, b, shift = (hk.get_parameter(name, shape, init=jnp.ones) for name, shape in shapes.items())
        return hk.Linear(3, name="out")(jax.nn.gelu((x * scale) @ w + x @ a @ b + shift + jnp.sin(jnp.arange(6.0))))

    model = hk.without_apply_rng(hk.transform(forward))
    tx = optax.adam(1e-2)

    def create(params):
        return tx.init(params)

    def train_step(params, opt_state, x, labels):
        def loss_fn(params):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), labels).mean()

        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return model, train_step, create


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    class Model(nn.Module):
        def setup(self):
            shapes = {"scale": (4,), "w": (4, 6), "a": (4, 2), "b": (2, 6), "shift": (6,)}
            made = [self.param(name, nn.initializers.ones, shape) for name, shape in shapes.items()]
            self.scale_, self.w_, self.a_, self.b_, self.shift_ = made
            self.out = nn.Dense(3)

        def __call__(self, x):
            scale, w, a, b, shift = self.scale_, self.w_, self.a_, self.b_, self.shift_
            hidden = (x * scale) @ w + x @ a @ b + shift
            hidden = nn.gelu(hidden + jnp.sin(jnp.arange(6.0)))
            return self.out(hidden)

    model = Model()
    adam = optax.adam(1e-2)

    def create(params):
        return adam.init(params)

    @jax.jit
    def train_step(params, opt_state, x, labels):
        def loss_fn(params):
            logits = model.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = adam.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return model, train_step, create


CASE = Case(
    guide="none: products that can be taken in another order, trained with Adam",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[5,4]", "labels": "int32[5]:3"},
    layers=(
        module("", "scale", "w", "a", "b", "shift", haiku="~", linen=""),
        linear("out", haiku="out", linen="out"),
    ),
)
"""

HIDDEN = "(x * scale) @ w + x @ a @ b + shift"
LINEN_SETUP = PRODUCTS[PRODUCTS.index("        def setup") : PRODUCTS.index("            hidden = (")]
LINEN_COMPACT = """        @nn.compact
        def __call__(self, x):
            out = nn.Dense(3, name="out")
            shapes = {"shift": (6,), "b": (2, 6), "a": (4, 2), "w": (4, 6), "scale": (4,)}
            shift, b, a, w, scale = (self.param(name, nn.initializers.ones, shape) for name, shape in shapes.items())
"""
CROSS_ENTROPY = "optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()"
GELU = "0.5 * hidden * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (hidden + 0.044715 * hidden * hidden * hidden)))"

GIVES, NNX_GIVES = "return x @ w + b", "return x @ self.w + self.b"
DOT_GENERAL = "return jax.lax.dot_general(x, self.w[...], (((1,), (0,)), ((), ()))) + self.b"
CAST = "nn.gelu((hidden + jnp.sin(jnp.arange(6.0))).astype(jnp.float32))"
TABLE = "jnp.array([0, 0.84147098, 0.90929743, 0.14112001, -0.7568025, -0.95892427], jnp.float32)"
LINEN, JAX, OPTAX = (f"import {name}\n" for name in ("flax.linen as nn", "jax", "optax"))
TAKES_ROW = (
    "ones = nn.initializers.ones(None, (len(x), 1))\n"
    "            return jax.numpy.hstack([x, ones]) @ jax.numpy.vstack([w, b[None]])"
)

LINEN_SCAN = """nn.scan(RNNCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)(
                self.hidden_size
            )"""
LINEN_LOOP = """RNNCell(self.hidden_size, name="cell")
            inner, step = rnn, lambda carry, t: inner(carry, x[:, t])"""
RUN_SCAN = "carry, y = rnn(carry, x)"
RUN_LOOP = """ys = []
            for t in range(x.shape[1]):
                carry, y = step(carry, t)
                ys.append(y)
            y = jnp.stack(ys, axis=1)"""
NNX_CELL = """x = jnp.concatenate([carry, x], axis=-1)
            x = self.linear(x)"""
SPLIT_CELL = """w = self.linear.kernel[...]
            x = x @ w[self.hidden_size :] + self.linear.bias[...] + carry @ w[: self.hidden_size]"""

STACK_RELU = "x = jax.nn.relu(x)"
STACK_DROPOUT = "x = nn.Dropout(0.5)(x, deterministic=not self.training)"
MASKED = """if self.training:
                x = x * jax.random.bernoulli(self.make_rng("dropout"), 0.5, x.shape) / 0.5"""
GRADIENT = "grads, counts = jax.grad(loss_fn, has_aux=True)(params, counts)"
VALUE_AND_GRADIENT = "(_, counts), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, counts)"
UPDATE = "params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)"
SGD = """updates, _ = optax.sgd(0.1).update(grads, optax.sgd(0.1).init(params))
        params = optax.apply_updates(params, updates)"""
SQUARES = "jnp.mean((y_pred - y) ** 2)"

NNX_NORM = "nnx.BatchNorm(dmid, rngs=rngs)"
NNX_CALL = "x = nnx.gelu(self.dropout(self.bn(self.linear1(x))))\n            return self.linear2(x)"
FOLDED = """if not self.bn.use_running_average:
                return self.linear2(nnx.gelu(self.dropout(self.bn(self.linear1(x)))))
            gain = self.bn.scale[...] / jnp.sqrt(self.bn.var[...] + self.bn.epsilon)
            y = x @ (self.linear1.w * gain) + ((self.linear1.b - self.bn.mean[...]) * gain + self.bn.bias[...])
            return self.linear2(nnx.gelu(y))"""
NORM = """class Norm(nnx.Module):
        def __init__(self, features):
            self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
            self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))
            self.use_running_average = False

        def __call__(self, x):
            mean, var = self.mean[...], self.var[...]
            if not self.use_running_average:
                mean = MEAN
                var = VARIANCE
                self.mean[...] += 0.01 * (mean - self.mean[...])
                self.var[...] += 0.01 * (var - self.var[...])
            return RESULT

    class MLP(nnx.Module):"""


def norm(mean: str, variance: str, result: str) -> tuple[str, ...]:
    """The changes that put a batch norm of our own into the NNX column of `mlp`."""
    written_out = NORM.replace("MEAN", mean).replace("VARIANCE", variance).replace("RESULT", result)
    return ("class MLP(nnx.Module):", written_out, NNX_NORM, "Norm(dmid)")


@dataclass(frozen=True)
class Variant:
    """One honest variant.

    Attributes:
        name: of the test.
        target: `case/candidate`; `products` is the case of this file.
        changes: old, new, old, new, ...
    """

    name: str
    target: str
    changes: tuple[str, ...]


VARIANTS = (
    # Sums and products in another order.
    Variant("as_it_stands", "products/linen", ()),
    Variant("sum_from_the_right", "products/linen", (HIDDEN, "(x * scale) @ w + (x @ a @ b + shift)")),
    Variant("scale_in_the_kernel", "products/linen", (HIDDEN, "x @ (scale[:, None] * w) + x @ a @ b + shift")),
    Variant("lora_product_from_the_right", "products/linen", (HIDDEN, "(x * scale) @ w + x @ (a @ b) + shift")),
    Variant("lora_merged_into_the_kernel", "products/linen", (HIDDEN, "x @ (scale[:, None] * w + a @ b) + shift")),
    Variant(
        "matmul_term_by_term",
        "custom_linear/nnx",
        (NNX_GIVES, "return x[:, :1] * self.w[:1] + (x[:, 1:] * self.w[1:] + self.b)"),
    ),
    Variant("bias_as_a_row_of_the_kernel", "custom_linear/linen", (LINEN, f"{LINEN}    {JAX}", GIVES, TAKES_ROW)),
    Variant("bias_before_a_reshape", "custom_linear/nnx", (NNX_GIVES, "return (x[:, None] @ self.w + self.b)[:, 0]")),
    Variant("bias_after_a_reshape", "custom_linear/nnx", (NNX_GIVES, "return (x[:, None] @ self.w)[:, 0] + self.b")),
    Variant("matmul_split_in_two", "rnn_scan/nnx", (NNX_CELL, SPLIT_CELL)),
    Variant(
        "matmul_as_einsum", "custom_linear/nnx", (NNX_GIVES, 'return jnp.einsum("bi,io->bo", x, self.w[...]) + self.b')
    ),
    Variant("matmul_as_dot_general", "custom_linear/nnx", (NNX_GIVES, DOT_GENERAL)),
    Variant(
        "matmul_of_the_transposed",
        "scan_over_layers/nnx",
        ("x = self.linear(x)", "x = (self.linear.kernel[...].T @ x.T).T + self.linear.bias[...]"),
    ),
    # Statistics.
    Variant("batch_norm_folded_into_the_kernel", "mlp/nnx", (NNX_CALL, FOLDED)),
    Variant("variance_in_two_passes", "mlp/linen", ("nn.BatchNorm()", "nn.BatchNorm(use_fast_variance=False)")),
    Variant(
        "norm_divides_by_the_root",
        "mlp/nnx",
        norm("x.mean(0)", "((x - mean) ** 2).mean(0)", "(x - mean) / jnp.sqrt(var + 1e-5) * self.scale + self.bias"),
    ),
    Variant(
        "norm_is_one_multiply_and_add",
        "mlp/nnx",
        norm(
            "jnp.sum(x, axis=0) / len(x)",
            "jnp.sum(jnp.square(x - mean), axis=0) / len(x)",
            "x * (gain := self.scale * jax.lax.rsqrt(var + 1e-5)) + (self.bias - mean * gain)",
        ),
    ),
    # Loops and transforms.
    Variant(
        "loop_over_time",
        "rnn_scan/linen",
        (LINEN_SCAN, LINEN_LOOP, RUN_SCAN, RUN_LOOP, "ScanRNNCell_0", "cell"),
    ),
    Variant("scan_over_time_unrolled", "rnn_scan/nnx", ("(nnx.Carry, 1))", "(nnx.Carry, 1), unroll=4)")),
    Variant(
        "vmap_over_the_batch",
        "custom_linear/nnx",
        (NNX_GIVES, "return jax.vmap(lambda row: row @ self.w[...] + self.b[...])(x)"),
    ),
    Variant(
        "loop_over_the_batch",
        "custom_linear/nnx",
        (NNX_GIVES, "return jnp.stack([row @ self.w[...] + self.b[...] for row in x])"),
    ),
    Variant(
        "jit_in_the_model",
        "custom_linear/linen",
        (LINEN, f"{LINEN}    {JAX}", GIVES, "return jax.jit(lambda x, w, b: x @ w + b)(x, w, b)"),
    ),
    Variant(
        "nnx_jit_in_the_model",
        "custom_linear/nnx",
        ("def __call__(self, x: jax.Array)", "@nnx.jit\n        def __call__(self, x: jax.Array)"),
    ),
    Variant("no_jit_around_the_step", "stateful_linear/linen", ("@jax.jit\n", "\n")),
    Variant(
        "checkpoint_around_the_layer",
        "custom_linear/linen",
        (LINEN, f"{LINEN}    {JAX}", GIVES, "return jax.checkpoint(lambda x, w, b: x @ w + b)(x, w, b)"),
    ),
    Variant(
        "linen_remat_around_the_block",
        "scan_over_layers/linen",
        ("                Block,\n", "                nn.remat(Block),\n", "ScanBlock_0", "ScanCheckpointBlock_0"),
    ),
    Variant(
        "nnx_remat_around_the_block",
        "scan_over_layers/nnx",
        ("x = model(x)", "x = nnx.remat(Block.__call__)(model, x)"),
    ),
    # Names, and the order in which modules and parameters are made.
    Variant("other_names", "counter/nnx", ("self.multiplier", "self.gain", 'nnx="multiplier"', 'nnx="gain"')),
    Variant("compact_for_setup_in_another_order", "products/linen", (LINEN_SETUP, LINEN_COMPACT, "self.out(", "out(")),
    # Functions of one value.
    Variant("relu_as_maximum", "rnn_scan/nnx", ("x = jax.nn.relu(x)", "x = jnp.maximum(x, 0)")),
    Variant(
        "gelu_written_out",
        "products/linen",
        ("hidden = nn.gelu(", f"gelu = lambda hidden: {GELU}\n            hidden = gelu("),
    ),
    Variant(
        "count_cast_to_float",
        "counter/nnx",
        ("self.multiplier * self.counter[...]", "self.multiplier * self.counter[...].astype(x.dtype)"),
    ),
    # Constants and layers that name their precision. Those that one port alone rounds to float32 are in `ROUNDED`.
    Variant("gelu_in_float32", "products/linen", ("nn.gelu(hidden + jnp.sin(jnp.arange(6.0)))", CAST)),
    Variant("dense_in_float32", "products/linen", ("nn.Dense(3)", "nn.Dense(3, dtype=jnp.float32)")),
    Variant("learning_rate_in_float32", "stateful_linear/linen", ("p - 0.1 * g", "p - jnp.float32(0.1) * g")),
    # Dropout.
    Variant(
        "dropout_after_the_relu",
        "scan_over_layers/linen",
        (f"{STACK_DROPOUT}\n            {STACK_RELU}", f"{STACK_RELU}\n            {STACK_DROPOUT}"),
    ),
    Variant("dropout_multiplies_by_the_mask", "scan_over_layers/linen", (STACK_DROPOUT, MASKED)),
    # Training.
    Variant("value_and_grad_for_grad", "stateful_linear/linen", (GRADIENT, VALUE_AND_GRADIENT)),
    Variant("optax_sgd_for_an_update_by_hand", "stateful_linear/linen", (JAX, f"{JAX}    {OPTAX}", UPDATE, SGD)),
    Variant(
        "tree_map_for_apply_updates",
        "products/linen",
        ("optax.apply_updates(params, updates)", "jax.tree.map(lambda p, u: p + u, params, updates)"),
    ),
    Variant(
        "adam_as_a_chain",
        "products/linen",
        ("adam = optax.adam(1e-2)", "adam = optax.chain(optax.scale_by_adam(), optax.scale(-1e-2))"),
    ),
    Variant("square_for_a_power", "stateful_linear/nnx", (SQUARES, "jnp.mean(jnp.square(y_pred - y))")),
    Variant(
        "product_for_a_power",
        "stateful_linear/linen",
        (SQUARES, "jnp.sum((y_pred - y) * (y_pred - y)) / y.size"),
    ),
    Variant(
        "cross_entropy_written_out",
        "products/linen",
        (CROSS_ENTROPY, "-(jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, 3)).sum(-1).mean()"),
    ),
)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The case of this file, as a file without its suffix."""
    path = tmp_path_factory.mktemp("cases") / "products.py"
    path.write_text(PRODUCTS)
    return str(path.with_suffix(""))


QUICK = ("as_it_stands", "sum_from_the_right", "matmul_as_einsum", "bias_before_a_reshape", "square_for_a_power")
"""The variants that are always tried; the others are `slow`."""

EVERY = [pytest.param(one, marks=() if one.name in QUICK else pytest.mark.slow, id=one.name) for one in VARIANTS]


@pytest.mark.parametrize("variant", EVERY)
def test_honest_variant_is_refused_by_no_check(variant: Variant, products: str) -> None:
    """No check refuses it, on any seed, and all of them ran."""
    case, candidate = variant.target.split("/")
    case = products if case == "products" else case
    changed = helpers.patched(case, *zip(variant.changes[::2], variant.changes[1::2], strict=True))
    results = helpers.judge(case, candidate, changed, SEEDS)
    assert not helpers.refuted(results)
    assert {"structure", "outputs", "gradients", "train"} <= set(results)


def test_there_are_sixteen_variants_with_names_of_their_own() -> None:
    """The table is long enough, and no row hides another."""
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS) >= 16


ROUNDED = {
    "norm_in_float32": ("mlp", "nnx", (NNX_NORM, "nnx.BatchNorm(dmid, dtype=jnp.float32, rngs=rngs)"), "0.7978846"),
    "table_in_float32": ("products", "linen", ("jnp.sin(jnp.arange(6.0))", TABLE), "table of 6 numbers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDED)
def test_constants_rounded_by_one_port_are_named_and_not_refused(name: str, products: str) -> None:
    """The float64 run keeps the rounded constant; it is read with the digits that explain the difference."""
    case, candidate, change, constant = ROUNDED[name]
    case = products if case == "products" else case
    results = helpers.judge(case, candidate, helpers.patched(case, change))
    assert not helpers.refuted(results)
    notes = [
        one.note for result in results.values() for one in result.findings if "are read to more digits" in one.note
    ]
    assert notes
    assert all(constant in note for note in notes)
