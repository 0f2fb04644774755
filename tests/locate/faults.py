"""Faults that porters make, as edits of one builder of a model; pairs of them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceFault:
    """One fault in one builder of a model.

    Attributes:
        name: of the fault, after its model and builder: `residual.linen rate`.
        old: a part of the builder.
        new: what stands there instead.
        layers: canonical layers of which one has to be named first; of a train step alone, `OPTIMIZER`.
        cause: a pattern of a right tried cause.
        kind: the class of which one faulty copy is made; empty: the builder itself is changed.
        line: a part of the faulty line to be named where that is not `new`,
            as the call of a layer that is made elsewhere.
        twin: a part of the other builder's line to be named; empty: `old`, where that is in it.
        held_out: written before anything was tuned, and not looked at while it was.
    """

    name: str
    old: str
    new: str
    layers: tuple[str, ...]
    cause: str
    kind: str = ""
    line: str = ""
    twin: str = ""
    held_out: bool = False

    @property
    def model(self) -> str:
        """The model."""
        return self.name.partition(".")[0]

    @property
    def port(self) -> str:
        """The faulty builder."""
        return self.name.partition(".")[2].partition(" ")[0]


OPTIMIZER = "optimizer"
"""In place of a layer: what differs is how a train step updates."""

DETACHED = "`?stop_gradient`?"


def fault(name: str, old: str, new: str, layers: str, cause: str, **more: Any) -> SourceFault:
    """One line of the table; a name with a star is held out."""
    return SourceFault(name.strip("*"), old, new, tuple(layers.split()), cause, held_out=name[0] == "*", **more)


def in_norm(name: str, old: str, new: str, cause: str, **more: Any) -> SourceFault:
    """A fault in one batch norm of the residual network."""
    kind = "Norm" if "haiku" in name else "Block"
    return fault(name, old, new, "blocks.1.norm1", cause, kind=kind, **more)


def in_step(name: str, old: str, new: str, cause: str, **more: Any) -> SourceFault:
    """A fault in an optimizer."""
    return fault(name, old, new, OPTIMIZER, cause, **{"line": "tx.update", "twin": "tx.update"} | more)


MEAN = 'hk.set_state("mean", 0.9 * old_mean + 0.1 * mean)'
DECAY = "optax.add_decayed_weights(1e-2, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),"
ADAM = "optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),"
RELU = 'y = jax.nn.relu(y)\n            y = hk.Conv2D(WIDTH, 3, with_bias=False, name="conv2")(y)'

RESIDUAL = (
    in_norm("residual.haiku epsilon", "var + 1e-5", "var + 1e-3", "epsilon 1e-05 in place of 0.001",
        twin='name="norm1"'),
    in_norm("*residual.haiku momentum", "0.9 * old_mean + 0.1 * mean", "0.99 * old_mean + 0.01 * mean",
            "0.9 in place of 0.99|0.1 in place of 0.01", twin='name="norm1"'),
    in_norm("residual.haiku unbiased variance", "var = x.var(axis=(0, 1, 2))", "var = x.var(axis=(0, 1, 2), ddof=1)",
            "divisor 75 in place of 74|mul with 0.98|variance", twin='name="norm1"'),
    in_norm("*residual.haiku unbiased average", "0.1 * var)", "0.1 * var * 75 / 74)",
            "no (mul|div) with|variance", twin='name="norm1"'),
    in_norm("residual.haiku update missing", MEAN, "pass", "update|set", line="old_mean", twin='name="norm1"'),
    in_norm("*residual.haiku update twice", MEAN,
            "hk.set_state(\"mean\", 0.9 * (0.9 * old_mean + 0.1 * mean) + 0.1 * mean)", "twice|once|no |leaves out",
            twin='name="norm1"'),
    fault("residual.haiku relu too many", "y = x + y", "y = x + jax.nn.relu(y)", "blocks.1.norm2", "no relu",
          kind="Block"),
    fault("*residual.haiku relu missing", RELU, RELU.partition("\n")[2].strip(), "blocks.1.norm1 blocks.1.conv2",
          "relu, which haiku leaves out", kind="Block", line='name="conv2"', twin="jax.nn.relu(y)"),
    fault("residual.haiku detached", "y = x + y", "y = jax.lax.stop_gradient(x) + y",
          "blocks.1.norm2 blocks.1.conv1 blocks.0.norm2", DETACHED, kind="Block"),
    in_step("*residual.haiku b2", "b2=0.999", "b2=0.99", "b2.*0.999"),
    in_step("residual.linen rate", "exponential_decay(1e-2", "exponential_decay(1e-3", "0.01 in place of 0.001"),
    in_step("*residual.linen weight decay", "weights(1e-2", "weights(1e-4", "0.01 in place of 0.0001"),
    in_step("residual.linen adam epsilon", "eps=1e-8", "eps=1e-5", "1e-08 in place of 1e-05"),
    in_step("*residual.linen b1", "b1=0.9,", "b1=0.8,", "b1.*0.9"),
    in_step("residual.linen clipping", "global_norm(0.25)", "global_norm(0.5)", "0.25 in place of 0.5"),
    in_step("*residual.linen decay of biases", DECAY, "optax.add_decayed_weights(1e-2),", "decay|no "),
    in_step("residual.linen order", f"{ADAM}\n        {DECAY}", f"{DECAY}\n        {ADAM}", "order|decay"),
    in_step("*residual.linen schedule late", "rate(schedule)", "rate(lambda count: schedule(count + 1))",
            "no add with 1", line="lambda count"),
    fault("residual.linen smoothing", "CLASSES), 0.1)", "CLASSES), 0.2)", "head optimizer",
          "0.1 in place of 0.2|0.9 in place of 0.8"),
    fault("*residual.linen summed loss", ".mean(), updates", ".sum(), updates", "head optimizer",
          "div with 3|factor|divisor", twin=".mean(), new_state"),
    in_norm("residual.linen momentum", "momentum=0.9", "momentum=0.99", "0.9 in place of 0.99|0.1 in place of 0.01",
            line='name="norm1"', twin="old_mean + 0.1"),
    fault("*residual.linen dilation", "(3, 3), use_bias=False, name=\"conv1\")",
          "(3, 3), kernel_dilation=2, use_bias=False, name=\"conv1\")", "blocks.1.conv1",
          r"rhs_dilation \(1, 1\) in place of \(2, 2\)", kind="Block", twin='name="conv1"'),
    fault("residual.linen padding", "(3, 3), use_bias=False, name=\"conv2\")",
          "(3, 3), padding=((2, 0), (2, 0)), use_bias=False, name=\"conv2\")", "blocks.1.conv2",
          r"padding .*in place of", kind="Block", twin='name="conv2"'),
    fault("*residual.linen maximum for mean", "x = x.mean(axis=(1, 2))", "x = x.max(axis=(1, 2))",
          "head blocks.2.norm2", "mean|reduce|sum"),
    in_norm("residual.linen averages in training", "use_running_average=not training", "use_running_average=True",
            "mean|average|statistics", line='name="norm1"', twin="mean"),
)  # fmt: skip

IMAGES = (
    fault("images.haiku epsilon", "eps=1e-6", "eps=1e-3", "norms.0", "epsilon 1e-06 in place of 0.001", twin="norm(x)"),
    fault("*images.haiku groups", "GroupNorm(2", "GroupNorm(4", "norms.0", "group|reshape", twin="norm(x)"),
    fault("images.haiku relu", "x = jax.nn.silu(x)", "x = jax.nn.relu(x)", "norms.0 convs.1", "silu in place of relu"),
    fault("*images.haiku spread", "jnp.exp(0.5 * spread)", "jnp.exp(spread)", "spread mean",
          "mul with 0.5 .*leaves out"),
    fault("images.haiku clip", "-8.0, 8.0", "-0.5, 0.5", "spread", "8 in place of 0.5"),
    fault("*images.haiku outputs exchanged", "return mean, spread", "return spread, mean", "mean spread",
          "`(mean|spread).*` (and|in place of) `(mean|spread)", line="hk.Linear(CODE", twin="self."),
    fault("images.haiku sign of a rule", "(0.5 * g,)", "(-0.5 * g,)", "grow mean spread", "0.5 in place of -0.5",
          line="(-0.5 * g,)|damped(z)", twin="(0.5 * g,)|damped(z)"),
    fault("*images.haiku detached", "z = damped(z)", "z = damped(jax.lax.stop_gradient(z))", "grow mean spread",
          DETACHED),
    fault("images.nnx relu", "y = jax.nn.elu(y)\n            y = self.up1(y)",
          "y = jax.nn.relu(y)\n            y = self.up1(y)",
          "up0", "elu in place of relu", line="jax.nn.relu(y)", twin="jax.nn.elu(y)"),
    fault("*images.nnx no rule", "z = damped(z)", "z = 1.0 * z", "grow mean spread", "0.5|rule"),
    fault("images.nnx tanh", "return jax.nn.sigmoid(y)", "return jnp.tanh(y)", "last", "sigmoid in place of tanh"),
    fault("*images.nnx flipped", "(3, 3), (2, 2), rngs=rngs)\n            self.last",
          "(3, 3), (2, 2), transpose_kernel=True, rngs=rngs)\n            self.last", "up1", "flip|transpose|order",
          line="self.up1(y)", twin='name="up1"'),
    fault("images.nnx detached", "mean = self.mean(x)", "mean = jax.lax.stop_gradient(self.mean(x))",
          "mean norms.3 spread grow", DETACHED, twin='name="mean"'),
    fault("*images.nnx sign", "* noise", "* -noise", "mean spread", "negation|neg|-1"),
    fault("images.nnx order", "x = x.reshape(x.shape[0], -1)", "x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)",
          "mean spread", "order|transpose", line="x.transpose|self.mean(x)|self.spread(x)",
          twin='x.reshape|name="mean"|name="spread"'),
)  # fmt: skip


def in_cell(name: str, old: str, new: str, gates: str, cause: str, **more: Any) -> SourceFault:
    """A fault in the second of two cells."""
    return fault(name, old, new, " ".join(f"cells.1.{gate}" for gate in gates.split()), cause, kind="Cell", **more)


INPUT = 'i = nn.Dense(WIDTH, name="xi")(x)'
OUTPUT = 'o = nn.Dense(WIDTH, name="xo")(x)'
WORDS = (
    in_cell("words.linen forget bias", "f + 1.0", "f + 0.0", "xf hf", "add with 1 |1 in place of 0"),
    in_cell("*words.linen gates", "c = f * c + i * g", "c = i * c + f * g", "xi xf hi hf xg hg",
            "x[if]|h[if]|exchanged"),
    in_cell("words.linen tanh", "h = o * jnp.tanh(c)", "h = o * c", "xo ho xg hg xf hf xi hi", "tanh, which"),
    fault("*words.linen carry", "start = jnp.zeros(", "start = jnp.ones(",
          " ".join(f"cells.0.{gate}" for gate in ["xi", "hi", "xf", "hf", "xg", "hg", "xo", "ho"]) + " words",
          "initial carry of 0 in place of 1|0 in place of 1", line="jnp.ones|loop(|(h)|f * c",
              twin="jnp.zeros|scan|(h)|f * c"),
    fault("words.linen rows", "(x) + nn.Dense(WIDTH, name=\"hi\")(h)", "(x) + nn.Dense(WIDTH, name=\"hi\")(x)",
          "cells.1.hi", "h|carry|operand|`", kind="Cell", twin="self.hi(h)"),
    fault("*words.linen summed loss", "return losses.mean()", "return losses.sum()", "head optimizer",
            "div with 12|divisor|factor",
            line="losses.sum()", twin="losses.mean()"),
    in_step("words.linen b2", "b2=0.99", "b2=0.999", "b2.*0.99", twin="optimizer.update"),
    fault("words.nnx residual", "x = x + y", "x = y", "words cells.0.xi cells.1.xi norm", "residual sum",
          line="cell, (start|swapaxes|x = y|self.norm(x)", twin="x = x + y"),
    in_cell("*words.nnx gate of another", "self.xf(x) + self.hf(h)", "self.xf(x) + self.hi(h)", "hf hi",
            "`cells.1.hf` in place of `cells.1.hi`", twin='name="hf"'),
    in_cell("words.nnx tanh of a gate", "i = jax.nn.sigmoid(i)", "i = jnp.tanh(i)", "xi hi",
        "sigmoid in place of tanh"),
    fault("*words.nnx direction", "(start, start), x.swapaxes(0, 1))",
          "(start, start), x.swapaxes(0, 1), reverse=True)",
          " ".join(f"cells.0.{gate}" for gate in ["xi", "hi", "xf", "hf", "xg", "hg", "xo", "ho"]), "other direction",
          line="reverse=True|self.xi(x)|self.xf(x)|self.xg(x)|self.xo(x)", twin="loop(|name="),
    in_cell("words.nnx detached", "c = f * c + i * g", "c = f * jax.lax.stop_gradient(c) + i * g",
            "xi hi xf hf xg hg xo ho", DETACHED),
    in_step("*words.nnx adam epsilon", "eps=1e-7", "eps=1e-4", "1e-07 in place of 0.0001", line="optimizer.update"),
    in_step("words.nnx rate", "adam(1e-2", "adam(3e-3", "0.01 in place of 0.003", line="optimizer.update"),
    fault("*words.nnx epsilon", "epsilon=1e-6", "epsilon=1e-5", "norm", "epsilon 1e-06 in place of 1e-05",
          line="self.norm(x)", twin='name="norm"'),
)  # fmt: skip


@dataclass(frozen=True)
class FaultPair:
    """Two faults at once.

    Attributes:
        faults: both, of one builder.
        held_out: not looked at while anything was tuned.
    """

    faults: tuple[SourceFault, SourceFault]
    held_out: bool = field(default=False)

    @property
    def name(self) -> str:
        """The builder and both names."""
        first, second = (one.name.partition(" ")[2] for one in self.faults)
        return f"{self.faults[0].name.partition(' ')[0]} {first} + {second}"
