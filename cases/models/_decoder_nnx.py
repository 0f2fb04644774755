"""A GPT decoder in NNX: pre-norm blocks, learned positions, a head of its own, computed in bfloat16."""

from functools import partial

import jax.numpy as jnp
import optax
from flax import nnx


class MLP(nnx.Module):
    """Two dense layers."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        self.up = nnx.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


class Block(nnx.Module):
    """Attention and an MLP, each after a norm and beside a residual."""

    def __init__(self, width: int, heads: int, *, dtype="bfloat16", rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, dtype=dtype, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)
        self.mlp = MLP(width, dtype=dtype, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))


class GPT(nnx.Module):
    """A decoder; `scanned`: a loop over stacked blocks that are computed again for the gradient."""

    def __init__(
        self, vocab: int, length: int, width: int, depth: int, heads: int, *, scanned=False, rngs: nnx.Rngs,
        dtype="bfloat16",
    ):  # fmt: skip
        self.token_embedding = nnx.Embed(vocab, width, dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(length, width, dtype=dtype, rngs=rngs)
        self.scanned = scanned
        if scanned:

            @nnx.split_rngs(splits=depth)
            @nnx.vmap(in_axes=0, out_axes=0)
            def create(rngs):
                return Block(width, heads, dtype=dtype, rngs=rngs)

            self.blocks = create(rngs)
        else:
            self.blocks = nnx.List([Block(width, heads, dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.final_norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, vocab, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, tokens):
        mask = nnx.make_causal_mask(tokens, dtype=bool)
        x = self.token_embedding(tokens) + self.position_embedding(jnp.arange(tokens.shape[-1]))
        if self.scanned:

            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            @nnx.remat
            def forward(x, block):
                return block(x, mask)

            x = forward(x, self.blocks)
        else:
            for block in self.blocks:
                x = block(x, mask)
        return self.head(self.final_norm(x)).astype(jnp.float32)


def add_lora(model: GPT, rank: int, *, dtype="bfloat16", rngs: nnx.Rngs) -> GPT:
    """Wrap both dense layers of every block in `nnx.LoRA`."""
    lora = partial(nnx.LoRA, dtype=dtype, rngs=rngs)
    for block in model.blocks:
        up, down = block.mlp.up, block.mlp.down
        block.mlp.up = lora(up.in_features, rank, up.out_features, base_module=up)
        block.mlp.down = lora(down.in_features, rank, down.out_features, base_module=down)
    return model


def adamw(weight_decay, **options):
    """AdamW with a warm-up, gradients clipped."""
    schedule = optax.warmup_cosine_decay_schedule(1e-5, 3e-4, warmup_steps=2, decay_steps=100)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=weight_decay, **options))


def trained(rngs: nnx.Rngs, **sizes):
    """Model, train step and optimizer."""
    return _with_training(GPT(**sizes, rngs=rngs), adamw(0.1, b2=0.95), nnx.Param)


def finetuned(rngs: nnx.Rngs, rank: int, **sizes):
    """Model, train step and optimizer, where only the low-rank updates are trained."""
    return _with_training(add_lora(GPT(**sizes, rngs=rngs), rank, rngs=rngs), adamw(0.01), nnx.LoRAParam)


def _with_training(model, tx, wrt):
    def create(model):
        return nnx.Optimizer(model, tx, wrt=wrt)

    @nnx.jit
    def train_step(model, optimizer, tokens):
        def loss_fn(model):
            logits = model(tokens)
            return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()

        loss, grads = nnx.value_and_grad(loss_fn, argnums=nnx.DiffState(0, wrt))(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create
