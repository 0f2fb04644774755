"""LSTM language model: two recurrent layers that packed and separate gates compute; computed in bfloat16."""

from equiv.case import Case
from equiv.layers import embed, layer_norm, linear, lstm


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    class LanguageModel(hk.Module):
        def __init__(self, vocab: int, width: int, layers: int, name=None):
            super().__init__(name=name)
            self.embed = hk.Embed(vocab, width, name="embed")
            self.cores = [hk.LSTM(width, name=f"lstm_{layer}") for layer in range(layers)]
            self.norm = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name="norm")
            self.head = hk.Linear(vocab, name="head")

        def __call__(self, tokens):
            x = self.embed(tokens)
            for core in self.cores:
                x, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
            return self.head(self.norm(x)).astype(jnp.float32)

    def forward(tokens):
        model = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        dense = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")
        norm = jmp.get_policy("params=float32,compute=float32,output=bfloat16")
        with (
            hk.mixed_precision.push_policy(LanguageModel, model),
            hk.mixed_precision.push_policy(hk.Linear, dense),
            hk.mixed_precision.push_policy(hk.LayerNorm, norm),
        ):
            return LanguageModel(vocab=40, width=32, layers=2)(tokens)

    model = hk.without_apply_rng(hk.transform(forward))
    schedule = optax.exponential_decay(2e-3, transition_steps=10, decay_rate=0.9)
    tx = optax.chain(optax.clip_by_global_norm(0.25), optax.adamw(schedule, weight_decay=1e-2))

    @jax.jit
    def train_step(params, opt_state, tokens, targets):
        def loss_fn(params):
            log_probs = jax.nn.log_softmax(model.apply(params, tokens))
            return -jnp.mean(jnp.sum(jax.nn.one_hot(targets, 40) * log_probs, axis=-1))

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return model, train_step, tx.init


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training import train_state

    class LanguageModel(nn.Module):
        vocab: int
        width: int
        layers: int
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(self.vocab, self.width, dtype=self.dtype)(tokens)
            for _ in range(self.layers):
                x = nn.RNN(nn.OptimizedLSTMCell(self.width, dtype=self.dtype))(x)
            x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)(x)
            return nn.Dense(self.vocab, dtype=self.dtype)(x).astype(jnp.float32)

    model = LanguageModel(vocab=40, width=32, layers=2)

    def create(params):
        schedule = optax.exponential_decay(2e-3, transition_steps=10, decay_rate=0.9)
        tx = optax.chain(optax.clip_by_global_norm(0.25), optax.adamw(schedule, weight_decay=1e-2))
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(state, tokens, targets):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, tokens)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return model, train_step, create


def nnx(rngs):
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class LanguageModel(nnx.Module):
        def __init__(self, vocab: int, width: int, layers: int, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            self.embedding = nnx.Embed(vocab, width, dtype=dtype, rngs=rngs)
            self.rnns = nnx.List(
                [nnx.RNN(nnx.OptimizedLSTMCell(width, width, dtype=dtype, rngs=rngs)) for _ in range(layers)]
            )
            self.norm = nnx.LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
            self.decoder = nnx.Linear(width, vocab, dtype=dtype, rngs=rngs)

        def __call__(self, tokens):
            x = self.embedding(tokens)
            for rnn in self.rnns:
                x = rnn(x)
            return self.decoder(self.norm(x)).astype(jnp.float32)

    model = LanguageModel(vocab=40, width=32, layers=2, rngs=rngs)

    def create(model):
        schedule = optax.exponential_decay(2e-3, transition_steps=10, decay_rate=0.9)
        tx = optax.chain(optax.clip_by_global_norm(0.25), optax.adamw(schedule, weight_decay=1e-2))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, tokens, targets):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(tokens), targets).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["targets"]).mean()


CASE = Case(
    guide="none: LSTM language model of Zaremba et al., 2014 (arXiv:1409.2329)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"tokens": "int32[4,9]:40", "targets": "int32[4,9]:40"},
    methods={"__call__": ("tokens",)},
    loss=loss,
    layers=(
        embed("embed", haiku="language_model/~/embed", linen="Embed_0", nnx="embedding"),
        lstm("lstm_0", haiku="language_model/~/lstm_0", linen="OptimizedLSTMCell_0", nnx="rnns.0.cell"),
        lstm("lstm_1", haiku="language_model/~/lstm_1", linen="OptimizedLSTMCell_1", nnx="rnns.1.cell"),
        layer_norm("norm", haiku="language_model/~/norm", linen="LayerNorm_0", nnx="norm"),
        linear("head", haiku="language_model/~/head", linen="Dense_0", nnx="decoder"),
    ),
)
