"""VQ-VAE: a codebook that averages keep, in a float32 island between an encoder and a decoder in bfloat16.

Haiku brings the codebook. Its averages are zero-debiased, so the other libraries' own ones are, too.
"""

from equiv.case import Case
from equiv.layers import conv, conv_transpose, state

CODES, SIZE, DECAY, EPSILON, COMMITMENT = 16, 8, 0.99, 1e-5, 0.25


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    class Encoder(hk.Module):
        def __call__(self, x):
            x = jax.nn.relu(hk.Conv2D(16, 4, stride=2, name="conv_1")(x))
            x = jax.nn.relu(hk.Conv2D(16, 3, name="conv_2")(x))
            return hk.Conv2D(SIZE, 1, name="to_codes")(x)

    class Decoder(hk.Module):
        def __call__(self, x):
            x = jax.nn.relu(hk.Conv2D(16, 3, name="conv_1")(x))
            return hk.Conv2DTranspose(3, 4, stride=2, name="to_image")(x)

    class VQVAE(hk.Module):
        def __call__(self, image, training):
            codebook = hk.nets.VectorQuantizerEMA(SIZE, CODES, COMMITMENT, DECAY, EPSILON, name="codebook")
            quantized = codebook(Encoder(name="encoder")(image), is_training=training)
            decoded = Decoder(name="decoder")(quantized["quantize"])
            return {"image": decoded, "commitment": quantized["loss"], "perplexity": quantized["perplexity"]}

    half = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")
    full = jmp.get_policy("float32")

    def forward(image, training):
        with (
            hk.mixed_precision.push_policy(VQVAE, full),
            hk.mixed_precision.push_policy(Encoder, half.with_output_dtype(jnp.float32)),
            hk.mixed_precision.push_policy(Decoder, half.with_output_dtype(jnp.float32)),
        ):
            return VQVAE(name="vqvae")(image, training)

    model = hk.without_apply_rng(hk.transform_with_state(forward))
    schedule = optax.piecewise_constant_schedule(2e-3, {3: 0.5, 50: 0.1})
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

    @jax.jit
    def train_step(params, state, opt_state, image):
        def loss_fn(params):
            outputs, new_state = model.apply(params, state, image, training=True)
            return jnp.mean((outputs["image"] - image) ** 2) + outputs["commitment"], new_state

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, loss

    return model, train_step, tx.init


def linen():
    from typing import Any

    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training import train_state

    class Average(nn.Module):
        shape: tuple[int, ...]

        @nn.compact
        def __call__(self, value, update):
            hidden = self.variable("batch_stats", "hidden", jnp.zeros, self.shape)
            average = self.variable("batch_stats", "average", jnp.zeros, self.shape)
            counter = self.variable("batch_stats", "counter", jnp.zeros, (), jnp.int32)
            if update and not self.is_initializing():
                counter.value += 1
                hidden.value = DECAY * hidden.value + (1 - DECAY) * value
                average.value = hidden.value / (1 - DECAY**counter.value)
            return average.value

    class Codebook(nn.Module):
        @nn.compact
        def __call__(self, x, training):
            codes = self.variable(
                "batch_stats", "codes", lambda: nn.initializers.lecun_uniform()(self.make_rng("params"), (SIZE, CODES))
            )
            flat = x.reshape(-1, SIZE)
            distances = (flat**2).sum(1, keepdims=True) - 2 * flat @ codes.value + (codes.value**2).sum(0)
            nearest = jnp.argmin(distances, axis=1)
            chosen = jax.nn.one_hot(nearest, CODES)
            quantized = codes.value.T[nearest].reshape(x.shape)
            sizes = Average((CODES,), name="sizes")(chosen.sum(0), training)
            sums = Average((SIZE, CODES), name="sums")(flat.T @ chosen, training)
            if training and not self.is_initializing():
                total = sizes.sum()
                codes.value = sums / ((sizes + EPSILON) / (total + CODES * EPSILON) * total)
            commitment = COMMITMENT * jnp.mean((jax.lax.stop_gradient(quantized) - x) ** 2)
            usage = chosen.mean(0)
            perplexity = jnp.exp(-jnp.sum(usage * jnp.log(usage + 1e-10)))
            return x + jax.lax.stop_gradient(quantized - x), commitment, perplexity

    class VQVAE(nn.Module):
        dtype: jnp.dtype = jnp.bfloat16

        def setup(self):
            self.encoder = nn.Sequential(
                [
                    nn.Conv(16, (4, 4), strides=2, dtype=self.dtype),
                    nn.relu,
                    nn.Conv(16, (3, 3), dtype=self.dtype),
                    nn.relu,
                    nn.Conv(SIZE, (1, 1), dtype=self.dtype),
                ]
            )
            self.codebook = Codebook()
            self.decoder = nn.Sequential(
                [
                    nn.Conv(16, (3, 3), dtype=self.dtype),
                    nn.relu,
                    nn.ConvTranspose(3, (4, 4), strides=(2, 2), dtype=self.dtype),
                ]
            )

        def __call__(self, image, training):
            encoded = self.encoder(image).astype(jnp.float32)
            quantized, commitment, perplexity = self.codebook(encoded, training)
            decoded = self.decoder(quantized).astype(jnp.float32)
            return {"image": decoded, "commitment": commitment, "perplexity": perplexity}

    model = VQVAE()

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def create(params, batch_stats):
        schedule = optax.piecewise_constant_schedule(2e-3, {3: 0.5, 50: 0.1})
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
        return TrainState.create(apply_fn=model.apply, params=params, tx=tx, batch_stats=batch_stats)

    @jax.jit
    def train_step(state, image):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            outputs, updates = state.apply_fn(variables, image, training=True, mutable="batch_stats")
            return jnp.mean((outputs["image"] - image) ** 2) + outputs["commitment"], updates["batch_stats"]

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=batch_stats), loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class Average(nnx.Module):
        def __init__(self, *shape: int):
            self.hidden = nnx.BatchStat(jnp.zeros(shape))
            self.average = nnx.BatchStat(jnp.zeros(shape))
            self.counter = nnx.BatchStat(jnp.array(0))

        def update(self, value):
            self.counter[...] += 1
            self.hidden[...] = self.hidden * DECAY + value * (1 - DECAY)
            self.average[...] = self.hidden / (1 - DECAY ** self.counter[...])
            return self.average[...]

    class Codebook(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.codes = nnx.BatchStat(nnx.initializers.lecun_uniform()(rngs.params(), (SIZE, CODES)))
            self.sizes, self.sums = Average(CODES), Average(SIZE, CODES)
            self.use_running_average = False

        def __call__(self, x):
            codes, flat = self.codes[...], x.reshape(-1, SIZE)
            distances = jnp.sum(flat**2, axis=1)[:, None] - 2 * (flat @ codes) + jnp.sum(codes**2, axis=0)[None]
            indices = jnp.argmin(distances, axis=-1)
            chosen = jax.nn.one_hot(indices, CODES)
            quantized = codes[:, indices].T.reshape(x.shape)
            if not self.use_running_average:
                sizes, sums = self.sizes.update(jnp.sum(chosen, axis=0)), self.sums.update(flat.T @ chosen)
                total = jnp.sum(sizes)
                self.codes[...] = sums / ((sizes + EPSILON) / (total + CODES * EPSILON) * total)
            commitment = COMMITMENT * jnp.mean(jnp.square(x - jax.lax.stop_gradient(quantized)))
            usage = jnp.mean(chosen, axis=0)
            perplexity = jnp.exp(-jnp.sum(usage * jnp.log(usage + 1e-10)))
            return x + jax.lax.stop_gradient(quantized - x), commitment, perplexity

    class VQVAE(nnx.Module):
        def __init__(self, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            make = {"dtype": dtype, "rngs": rngs}
            self.down, self.mid = nnx.Conv(3, 16, (4, 4), strides=2, **make), nnx.Conv(16, 16, (3, 3), **make)
            self.to_codes = nnx.Conv(16, SIZE, (1, 1), **make)
            self.codebook = Codebook(rngs)
            self.from_codes = nnx.Conv(SIZE, 16, (3, 3), **make)
            self.up = nnx.ConvTranspose(16, 3, (4, 4), strides=(2, 2), **make)

        def __call__(self, image):
            encoded = self.to_codes(nnx.relu(self.mid(nnx.relu(self.down(image)))))
            quantized, commitment, perplexity = self.codebook(encoded.astype(jnp.float32))
            decoded = self.up(nnx.relu(self.from_codes(quantized))).astype(jnp.float32)
            return {"image": decoded, "commitment": commitment, "perplexity": perplexity}

    model = VQVAE(rngs=rngs)

    def create(model):
        schedule = optax.piecewise_constant_schedule(2e-3, {3: 0.5, 50: 0.1})
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, image):
        def loss_fn(model):
            outputs = model(image)
            return jnp.mean((outputs["image"] - image) ** 2) + outputs["commitment"]

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import jax.numpy as jnp

    return jnp.mean((outputs["image"] - batch["image"]) ** 2) + outputs["commitment"]


CASE = Case(
    guide="none: VQ-VAE of van den Oord et al., 2017 (arXiv:1711.00937), with hk.nets.VectorQuantizerEMA",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"image": "float32[4,8,8,3]"},
    loss=loss,
    layers=(
        conv("encoder.conv_1", haiku="vqvae/encoder/conv_1", linen="encoder/layers_0", nnx="down"),
        conv("encoder.conv_2", haiku="vqvae/encoder/conv_2", linen="encoder/layers_2", nnx="mid"),
        conv("encoder.to_codes", haiku="vqvae/encoder/to_codes", linen="encoder/layers_4", nnx="to_codes"),
        conv("decoder.conv_1", haiku="vqvae/decoder/conv_1", linen="decoder/layers_0", nnx="from_codes"),
        conv_transpose("decoder.to_image", haiku="vqvae/decoder/to_image", linen="decoder/layers_2", nnx="up"),
        state(
            "codebook.codes",
            haiku="vqvae/codebook/embeddings",
            linen="batch_stats/codebook/codes",
            nnx="codebook.codes",
        ),
        *(
            state(
                f"codebook.{name}.{leaf}",
                haiku=f"vqvae/codebook/~/{haiku}/{leaf}",
                linen=f"batch_stats/codebook/{name}/{leaf}",
                nnx=f"codebook.{name}.{leaf}",
            )
            for name, haiku in (("sizes", "ema_cluster_size"), ("sums", "ema_dw"))
            for leaf in ("hidden", "average", "counter")
        ),
    ),
)
