"""A GPT decoder in Haiku: pre-norm blocks, learned positions, a head of its own, mixed precision by policy."""

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import optax


class LoraLinear(hk.Module):
    """A dense layer with a low-rank update beside it."""

    def __init__(self, output_size: int, rank: int, name: str | None = None):
        super().__init__(name=name)
        self.output_size = output_size
        self.rank = rank

    def __call__(self, x):
        a = hk.get_parameter("lora_a", (x.shape[-1], self.rank), x.dtype, init=hk.initializers.VarianceScaling())
        b = hk.get_parameter("lora_b", (self.rank, self.output_size), x.dtype, init=jnp.zeros)
        return hk.Linear(self.output_size, name="base")(x) + x @ a @ b


class Block(hk.Module):
    """Attention and an MLP, each after a norm and beside a residual."""

    def __init__(self, heads: int, rank: int = 0, name: str | None = None):
        super().__init__(name=name)
        self.heads = heads
        self.rank = rank

    def __call__(self, x, mask):
        def dense(size: int, name: str) -> hk.Module:
            return LoraLinear(size, self.rank, name=name) if self.rank else hk.Linear(size, name=name)

        width = x.shape[-1]
        attention = hk.MultiHeadAttention(
            self.heads, width // self.heads, w_init=hk.initializers.VarianceScaling(), name="attention"
        )
        h = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="ln_1")(x)
        x = x + attention(h, h, h, mask=mask)
        h = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="ln_2")(x)
        h = jax.nn.gelu(dense(4 * width, "fc")(h))
        return x + dense(width, "proj")(h)


class GPT(hk.Module):
    """A decoder; `scanned`: a loop over stacked blocks that are computed again for the gradient."""

    def __init__(self, vocab: int, length: int, width: int, depth: int, heads: int, rank: int = 0, scanned=False):
        super().__init__(name="gpt")
        self.vocab, self.length, self.width, self.depth, self.heads = vocab, length, width, depth, heads
        self.rank, self.scanned = rank, scanned

    def __call__(self, tokens):
        steps = tokens.shape[-1]
        mask = jnp.tril(jnp.ones((steps, steps), dtype=bool))[None, None]
        x = hk.Embed(self.vocab, self.width, name="wte")(tokens)
        x = x + hk.Embed(self.length, self.width, name="wpe")(jnp.arange(steps))
        if self.scanned:
            stack = hk.experimental.layer_stack(self.depth, name="blocks")
            x = stack(hk.remat(lambda x: Block(self.heads, self.rank, name="block")(x, mask)))(x)
        else:
            for index in range(self.depth):
                x = Block(self.heads, self.rank, name=f"block_{index}")(x, mask)
        x = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="ln_f")(x)
        return hk.Linear(self.vocab, with_bias=False, name="head")(x).astype(jnp.float32)


def transformed(dtype: str = "bfloat16", **sizes) -> hk.Transformed:
    """The model as pure functions, computed in a dtype but for the norms."""
    model = jmp.get_policy(f"params=float32,compute={dtype},output=float32")
    dense = jmp.get_policy(f"params=float32,compute={dtype},output={dtype}")
    norm = jmp.get_policy(f"params=float32,compute=float32,output={dtype}")

    def forward(tokens):
        with (
            hk.mixed_precision.push_policy(GPT, model),
            hk.mixed_precision.push_policy(hk.Linear, dense),
            hk.mixed_precision.push_policy(hk.LayerNorm, norm),
        ):
            return GPT(**sizes)(tokens)

    return hk.without_apply_rng(hk.transform(forward))


def next_token_loss(model, params, tokens):
    """Cross entropy of every token but the first."""
    logits = model.apply(params, tokens)
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()


def trained(**sizes):
    """Model, train step and optimizer state: AdamW with a warm-up, gradients clipped."""
    model = transformed(**sizes)
    schedule = optax.warmup_cosine_decay_schedule(1e-5, 3e-4, warmup_steps=2, decay_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.1))

    @jax.jit
    def train_step(params, opt_state, tokens):
        loss, grads = jax.value_and_grad(lambda params: next_token_loss(model, params, tokens))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, tx.init


def finetuned(**sizes):
    """Model, train step and optimizer state, where only the low-rank updates are trained."""
    model = transformed(**sizes)
    schedule = optax.warmup_cosine_decay_schedule(1e-5, 3e-4, warmup_steps=2, decay_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))

    def split(params):
        return hk.data_structures.partition(lambda module, name, value: name.startswith("lora_"), params)

    def create(params):
        return tx.init(split(params)[0])

    @jax.jit
    def train_step(params, opt_state, tokens):
        lora, frozen = split(params)

        def loss_fn(lora):
            return next_token_loss(model, hk.data_structures.merge(lora, frozen), tokens)

        loss, grads = jax.value_and_grad(loss_fn)(lora)
        updates, opt_state = tx.update(grads, opt_state, lora)
        return hk.data_structures.merge(optax.apply_updates(lora, updates), frozen), opt_state, loss

    return model, train_step, create
