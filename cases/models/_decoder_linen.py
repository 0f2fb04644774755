"""A GPT decoder in Linen: pre-norm blocks, learned positions, a head of its own, computed in bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from flax.training import train_state


class LoraDense(nn.Module):
    """A dense layer with a low-rank update beside it."""

    features: int
    rank: int
    dtype: str = "bfloat16"

    @nn.compact
    def __call__(self, x):
        lora_a = self.param("lora_a", nn.initializers.he_uniform(), (x.shape[-1], self.rank))
        lora_b = self.param("lora_b", nn.initializers.zeros, (self.rank, self.features))
        x, lora_a, lora_b = nn.dtypes.promote_dtype(x, lora_a, lora_b, dtype=self.dtype)
        return nn.Dense(self.features, dtype=self.dtype, name="base")(x) + x @ lora_a @ lora_b


class MLP(nn.Module):
    """Two dense layers."""

    rank: int
    dtype: str = "bfloat16"

    @nn.compact
    def __call__(self, x):
        def dense(features, name):
            if self.rank:
                return LoraDense(features, self.rank, dtype=self.dtype, name=name)
            return nn.Dense(features, dtype=self.dtype, name=name)

        h = nn.gelu(dense(4 * x.shape[-1], "c_fc")(x))
        return dense(x.shape[-1], "c_proj")(h)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and beside a residual."""

    heads: int
    rank: int = 0
    dtype: str = "bfloat16"

    @nn.compact
    def __call__(self, x, mask):
        h = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="ln_1")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name="attn")(h, mask=mask)
        h = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="ln_2")(x)
        return x + MLP(self.rank, dtype=self.dtype, name="mlp")(h)


class ScannedBlock(Block):
    """The block as the body of `nn.scan`."""

    @nn.compact
    def __call__(self, x, mask):
        return super().__call__(x, mask), None


class GPT(nn.Module):
    """A decoder; `scanned`: a loop over stacked blocks that are computed again for the gradient."""

    vocab: int
    length: int
    width: int
    depth: int
    heads: int
    rank: int = 0
    scanned: bool = False
    dtype: str = "bfloat16"

    @nn.compact
    def __call__(self, tokens):
        mask = nn.make_causal_mask(tokens, dtype=bool)
        x = nn.Embed(self.vocab, self.width, dtype=self.dtype, name="wte")(tokens)
        x = x + nn.Embed(self.length, self.width, dtype=self.dtype, name="wpe")(jnp.arange(tokens.shape[-1]))
        if self.scanned:
            stack = nn.scan(
                nn.remat(ScannedBlock, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.depth,
            )
            x, _ = stack(self.heads, self.rank, dtype=self.dtype, name="h")(x, mask)
        else:
            for index in range(self.depth):
                x = Block(self.heads, self.rank, dtype=self.dtype, name=f"h_{index}")(x, mask)
        x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="ln_f")(x)
        logits = nn.Dense(self.vocab, use_bias=False, dtype=self.dtype, name="lm_head")(x)
        return logits.astype(jnp.float32)


def adamw(weight_decay, **options):
    """AdamW with a warm-up, gradients clipped."""
    schedule = optax.warmup_cosine_decay_schedule(1e-5, 3e-4, warmup_steps=2, decay_steps=100)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=weight_decay, **options))


def trained(**sizes):
    """Model, train step and train state."""
    return _with_training(GPT(**sizes), adamw(0.1, b2=0.95))


def finetuned(**sizes):
    """Model, train step and train state, where only the low-rank updates are trained."""

    def labels(params):
        return traverse_util.path_aware_map(
            lambda path, _: "lora" if path[-1].startswith("lora_") else "frozen", params
        )

    tx = optax.multi_transform({"lora": adamw(0.01), "frozen": optax.set_to_zero()}, labels)
    return _with_training(GPT(**sizes), tx)


def _with_training(model, tx):
    def create(params):
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(state, tokens):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, tokens)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
            return jnp.mean(losses)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return model, train_step, create
