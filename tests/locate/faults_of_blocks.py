"""Faults in the language model and in the recurrent model: known while the search was tuned."""

from typing import Any

from locate.faults import SourceFault, fault


def in_block(name: str, old: str, new: str, layers: str, cause: str, kind: str = "Block", **more: Any) -> SourceFault:
    """A fault in the second block of the language model alone."""
    places = " ".join(f"blocks.1.{layer}" for layer in layers.split())
    return fault(f"decoder.nnx {name}", old, new, places, cause, kind=kind, **more)


def in_recurrent(name: str, old: str, new: str, layers: str, cause: str, **more: Any) -> SourceFault:
    """A fault in the recurrent model."""
    return fault(f"recurrent.nnx {name}", old, new, layers, cause, **more)


BLOCKS = (
    in_block("eps", "self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5", "self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-3",
             "norm2", "epsilon 1e-05 in place of 0.001", line="self.norm2(x)", twin="b{n}_norm2"),
    in_block("gelu exact", "y = jax.nn.gelu(y)", "y = jax.nn.gelu(y, approximate=False)", "up down",
             r"gelu \(tanh approximation\) in place of gelu", twin="_up"),
    in_block("relu", "y = jax.nn.gelu(y)", "y = jax.nn.relu(y)", "up down", r"gelu \(tanh.* in place of relu",
        twin="_up"),
    in_block("no activation", "y = jax.nn.gelu(y)", "y = y * 1.0", "up down", r"gelu .*leaves out",
        line="y * 1.0|self.down(y)", twin="_up"),
    in_block("no residual", "x = x + y", "x = y", "out norm2", "residual sum .*leaves out",
        line="x = y|self.norm2(x)", twin="_out"),
    in_block("residual of the norm", "x = x + y\n            y = self.norm2(x)", "y = self.norm2(x + y)",
             "out norm2 down", "residual|sum", line="return x + y|self.norm2(x + y)", twin="_out|_norm2|_down"),
    in_block("scale", "scores = scores * (WIDTH // HEADS) ** -0.5", "scores = scores * WIDTH ** -0.5", "q k v out",
             "factor 0.5 in place of 0.353", twin="(WIDTH // HEADS) **"),
    in_block("no scale", "scores = scores * (WIDTH // HEADS) ** -0.5", "scores = scores * 1.0", "q k v out",
             "mul with 0.5 that nnx leaves out", line="* 1.0|jnp.where", twin="(WIDTH // HEADS) **"),
    in_block("softmax axis", "axis=-1)", "axis=-2)", "q k v out",
             "softmax over axis 3 in place of softmax over axis 2"),
    in_block("mask value", "scores, -1e9)", "scores, -1.0)", "q k v out", "mask -1e\\+09 in place of -1"),
    in_block("q and k", "q = self.q(y)\n            k = self.k(y)", "q = self.k(y)\n            k = self.q(y)", "q k",
             "`blocks.1.[qk]` (and `blocks.1.[qk]` exchanged|in place of `blocks.1.[qk]`)",
                 twin='jnp.einsum("bqhd,bkhd->bhqk"|for name in "qkv"'),
    in_block("v for k", "v = self.v(y)", "v = self.k(y)", "v k out", "`blocks.1.v` in place of `blocks.1.k`",
        twin='"bhqk,bkhd->bqhd"|for name in "qkv"'),
    in_block("gelu twice", "y = jax.nn.gelu(y)", "y = jax.nn.gelu(jax.nn.gelu(y))", "up down", "no gelu",
        twin="_up|_down"),
    in_block("norm left out", "y = self.norm2(x)", "y = x", "norm2 up", "norm", line="self.up(y)", twin="_norm2|_up"),
    in_block("mask off by one", "jnp.tri(q.shape[1], dtype=bool)", "jnp.tri(q.shape[1], k=1, dtype=bool)", "q k v out",
             "tri|iota|offset|constant|no add with 1"),
    in_block("tanh", "y = jax.nn.gelu(y)", "y = jnp.tanh(y)", "up down", r"gelu .* in place of tanh", twin="_up"),
    in_block("factor after", "y = self.out(y)", "y = 0.5 * self.out(y)", "out", "no mul with 0.5", twin="_out"),
    fault("decoder.nnx blocks exchanged", "for block in self.blocks:",
          "for block in (self.blocks[n] for n in (1, 0, 2)):", "blocks.0.norm1 blocks.1.norm1",
          "`blocks.[01]` (and|in place of) `blocks.[01]`", line="self.blocks[n]|block(x)|self.norm1(x)",
          twin="norm1"),
    fault("decoder.nnx positions", "places = jnp.arange(words.shape[1])", "places = jnp.arange(words.shape[1]) + 1",
          "places words", "no add with 1", line="+ 1", twin="jnp.arange"),
    in_recurrent("carry", "start = jnp.zeros(", "start = jnp.ones(", "gate fresh back blocks.3.norm",
                 "initial carry of 0 in place of 1", twin="jnp.zeros(|hk.scan|back(h)|z * h"),
    in_recurrent("direction", "jax.lax.scan(self.step, start, x)", "jax.lax.scan(self.step, start, x, reverse=True)",
                 "gate fresh back", "other direction", twin="hk.scan|(row)"),
    in_recurrent("forget bias", "sigmoid(z + 1.0)", "sigmoid(z + 0.0)", "gate", "add with 1 that nnx leaves out",
        twin="gate(row)"),
    in_recurrent("no forget bias", "sigmoid(z + 1.0)", "sigmoid(z)", "gate", "add with 1 .*leaves out",
        line="sigmoid(z)|self.gate(row)", twin="gate(row)"),
    in_recurrent("gate swapped", "h = z * h + (1 - z) * new", "h = (1 - z) * h + z * new", "gate fresh back",
        "z|sub|difference|logistic"),
    in_recurrent("relu in the loop", "new = jnp.tanh(new)", "new = jax.nn.relu(new)", "fresh back",
                 "tanh in place of relu", twin="jnp.tanh"),
    in_recurrent("eps", "self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6",
                 "self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5",
                 "blocks.2.norm", "epsilon 1e-06 in place of 1e-05", line="self.norm(x + y)", kind="Block",
                     twin="_norm"),
    in_recurrent("leaky", "y = jax.nn.relu(y)", "y = jax.nn.leaky_relu(y)", "blocks.2.up blocks.2.down",
                 "relu in place of leaky_relu", kind="Block"),
    in_recurrent("post norm", "return self.norm(x + y)", "return x + self.norm(y)", "blocks.2.norm blocks.2.down",
                 "residual", kind="Block", twin="_norm"),
    in_recurrent("sum for mean", "x.swapaxes(0, 1).mean(axis=1)", "x.swapaxes(0, 1).sum(axis=1)",
                 "head gate fresh back", "div with 7 .*leaves out"),
    in_recurrent("softmax for log", "return jax.nn.log_softmax(x, axis=-1)", "return jax.nn.softmax(x, axis=-1)",
                 "head",
                 "log_softmax over axis 1 in place of softmax", twin="log_softmax"),
    in_recurrent("head of another axis", "return jax.nn.log_softmax(x, axis=-1)",
                 "return jax.nn.log_softmax(x, axis=0)",
                 "head", "log_softmax over axis 1 in place of log_softmax over axis 0", twin="log_softmax"),
    in_recurrent("fresh for back", "self.fresh(row) + self.back(h)", "self.fresh(row) + self.fresh(h)", "back fresh",
                 "`back` in place of `fresh`", twin="back(h)"),
)  # fmt: skip
"""Each is one edit; a further one needs nothing else."""


def _decoder(name: str, old: str, new: str, layers: str, cause: str, **more: Any) -> SourceFault:
    """A held-out fault in the language model."""
    return fault(f"*decoder.{name}", old, new, layers, cause, **more)


HIDDEN = (
    _decoder("haiku epsilon", 'eps=1e-5, name="norm")', 'eps=1e-6, name="norm")', "norm",
             "epsilon 1e-05 in place of 1e-06", twin="self.norm(x)"),
    _decoder("haiku relu", "y = jax.nn.gelu(hk.Linear", "y = jax.nn.relu(hk.Linear", "blocks.0.up blocks.0.down",
             r"gelu \(tanh approximation\) in place of relu", twin="jax.nn.gelu"),
    _decoder("haiku k for q", "q, k, v = (hk.Linear(WIDTH, name=f\"b{n}_{name}\")(y) for name in \"qkv\")",
             "k, q, v = (hk.Linear(WIDTH, name=f\"b{n}_{name}\")(y) for name in \"qkv\")", "blocks.0.q blocks.0.k",
             "`blocks.[0-9].[qk].*(exchanged|in place of `blocks.[0-9].[qk])", line="k, q, v|attend(q",
             twin="self.q|self.k|jnp.einsum(\"bqhd"),
    _decoder("haiku no last norm", 'x = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)',
             'hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)', "norm head", "norm", line='name="head"',
             twin="self.norm(x)|self.head(x)"),
    _decoder("haiku scaled words", 'name="words")(words)', 'name="words")(words) * WIDTH ** 0.5', "words places",
             "no mul with 2.8", twin="self.words(words)"),
    _decoder("nnx k transposed", '"bqhd,bkhd->bhqk", q, k)\n            scores = scores *',
             '"bkhd,bqhd->bhqk", q, k)\n            scores = scores *', "blocks.1.q blocks.1.k",
             "`blocks.1.[qk]` (and|in place of) `blocks.1.[qk]`|transposed", kind="Block",
             line="einsum|jnp.where|softmax", twin="einsum|jnp.where|softmax"),
    _decoder("nnx detached", "x = x + y\n            y = self.norm2(x)",
        "x = x + jax.lax.stop_gradient(y)\n            y = self.norm2(x)",
             "blocks.1.out blocks.1.norm2 blocks.1.v", "`?stop_gradient`?", kind="Block", line="stop_gradient",
                 twin="_out"),
    _decoder("nnx values of keys", "return jnp.einsum(\"bhqk,bkhd->bqhd\", weights, v)",
             "return jnp.einsum(\"bhqk,bkhd->bqhd\", weights, k)", "blocks.1.v blocks.1.k",
             "`blocks.1.v` in place of `blocks.1.k`", kind="Block", twin="weights, v)"),
    fault("*recurrent.haiku squared", "y = jax.nn.relu(y)", "y = jax.nn.relu(y) ** 2",
          "blocks.0.up blocks.0.down", "no (integer_pow|square)", twin="jax.nn.relu(y)"),
    fault("*recurrent.haiku forget bias", "gate(row) + 1.0", "gate(row) + 2.0", "gate", "1 in place of 2",
          twin="z + 1.0"),
    fault("*recurrent.haiku last of all", "x.swapaxes(0, 1).mean(axis=1)", "x.swapaxes(0, 1)[:, -1]",
          "head gate fresh back", "mean|sum|last", twin="mean(axis=1)"),
    fault("*recurrent.haiku detached", "new = jnp.tanh(fresh(row) + back(h))",
          "new = jnp.tanh(fresh(row) + back(jax.lax.stop_gradient(h)))", "gate fresh back", "`?stop_gradient`?",
          twin="jnp.tanh(new)|self.back(h)"),
    fault("*recurrent.nnx rows", "self.gate(row)", "self.gate(h)", "gate", "operand|row|`", line="self.gate(h)|z + 1.0",
          twin="gate(row)"),
    fault("*recurrent.nnx no norm", "return self.norm(x + y)", "return x + y",
          "blocks.2.norm blocks.3.up blocks.3.norm",
          "norm", kind="Block", twin="_norm"),
    fault("*recurrent.nnx half", "return self.norm(x + y)", "return self.norm(x + 0.5 * y)",
          "blocks.2.norm blocks.2.down",
          "no mul with 0.5", kind="Block", twin="_norm"),
)  # fmt: skip
"""Held out."""
