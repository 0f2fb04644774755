"""Vision transformer: 12 blocks with dropout, a class token, patches by a strided convolution; computed in bfloat16."""

from equiv.case import Case
from equiv.layers import attention, conv, layer_norm, linear, parameter
from equiv.layouts import Squeeze

PATCH, WIDTH, DEPTH, HEADS, CLASSES = 8, 32, 12, 4, 10


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    def layer_norm(name):
        return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=name)

    class Block(hk.Module):
        def __call__(self, x, dropout_rate):
            init = hk.initializers.VarianceScaling()
            h = layer_norm("norm_1")(x)
            h = hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=init, name="attention")(h, h, h)
            x = x + hk.dropout(hk.next_rng_key(), dropout_rate, h)
            h = layer_norm("norm_2")(x)
            h = jax.nn.gelu(hk.Linear(4 * WIDTH, name="mlp_1")(h), approximate=False)
            return x + hk.dropout(hk.next_rng_key(), dropout_rate, hk.Linear(WIDTH, name="mlp_2")(h))

    class ViT(hk.Module):
        def __call__(self, image, training):
            x = hk.Conv2D(WIDTH, PATCH, stride=PATCH, padding="VALID", name="patch_embedding")(image)
            x = x.reshape(x.shape[0], -1, WIDTH)
            token = hk.get_parameter("cls", (1, 1, WIDTH), init=jnp.zeros)
            x = jnp.concatenate([jnp.tile(token.astype(x.dtype), (x.shape[0], 1, 1)), x], axis=1)
            x = x + hk.get_parameter("positions", x.shape[1:], init=hk.initializers.TruncatedNormal(0.02))
            for index in range(DEPTH):
                x = Block(name=f"block_{index}")(x, 0.1 if training else 0.0)
            return hk.Linear(CLASSES, name="head")(layer_norm("norm")(x)[:, 0]).astype(jnp.float32)

    def forward(image, training):
        half = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        norm = jmp.get_policy("params=float32,compute=float32,output=bfloat16")
        with hk.mixed_precision.push_policy(ViT, half), hk.mixed_precision.push_policy(hk.LayerNorm, norm):
            return ViT()(image, training)

    model = hk.transform(forward)
    schedule = optax.warmup_cosine_decay_schedule(1e-4, 1e-3, warmup_steps=2, decay_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))

    @jax.jit
    def train_step(key, params, opt_state, image, labels):
        def loss_fn(params):
            logits = model.apply(params, key, image, training=True)
            one_hot = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), 0.1)
            return optax.softmax_cross_entropy(logits, one_hot).mean()

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

    class EncoderBlock(nn.Module):
        dtype: jnp.dtype

        @nn.compact
        def __call__(self, x, training):
            h = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)(x)
            h = nn.MultiHeadDotProductAttention(HEADS, dtype=self.dtype)(h)
            x = x + nn.Dropout(0.1, deterministic=not training)(h)
            h = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)(x)
            h = nn.gelu(nn.Dense(4 * WIDTH, dtype=self.dtype)(h), approximate=False)
            return x + nn.Dropout(0.1, deterministic=not training)(nn.Dense(WIDTH, dtype=self.dtype)(h))

    class ViT(nn.Module):
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, image, training):
            x = nn.Conv(WIDTH, (PATCH, PATCH), strides=PATCH, padding="VALID", dtype=self.dtype, name="embedding")(
                image
            )
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height * width, channels)
            cls = self.param("cls", nn.initializers.zeros, (1, 1, channels))
            x = jnp.concatenate([jnp.tile(cls.astype(self.dtype), (batch, 1, 1)), x], axis=1)
            positions = self.param("positions", nn.initializers.normal(0.02), x.shape[1:])
            x = x + positions.astype(self.dtype)
            for index in range(DEPTH):
                x = EncoderBlock(self.dtype, name=f"encoderblock_{index}")(x, training)
            x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="encoder_norm")(x)
            return nn.Dense(CLASSES, dtype=self.dtype, name="head")(x[:, 0]).astype(jnp.float32)

    model = ViT()

    def create(params):
        schedule = optax.warmup_cosine_decay_schedule(1e-4, 1e-3, warmup_steps=2, decay_steps=100)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(key, state, image, labels):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, image, training=True, rngs={"dropout": key})
            one_hot = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), 0.1)
            return optax.softmax_cross_entropy(logits, one_hot).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return model, train_step, create


def nnx(rngs):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, dtype, rngs: nnx.Rngs):
            make = {"dtype": dtype, "rngs": rngs}
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, **make)
            self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, **make)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, **make)
            self.fc1, self.fc2 = nnx.Linear(WIDTH, 4 * WIDTH, **make), nnx.Linear(4 * WIDTH, WIDTH, **make)
            self.dropout1, self.dropout2 = nnx.Dropout(0.1, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x):
            x = x + self.dropout1(self.attention(self.norm1(x)))
            return x + self.dropout2(self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False)))

    class ViT(nnx.Module):
        def __init__(self, patches: int, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            self.dtype = dtype
            self.patches = nnx.Conv(
                3, WIDTH, (PATCH, PATCH), strides=(PATCH, PATCH), padding="VALID", dtype=dtype, rngs=rngs
            )
            self.cls_token = nnx.Param(jnp.zeros((1, 1, WIDTH)))
            self.position_embeddings = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (1, patches + 1, WIDTH)))
            self.blocks = nnx.List([Block(dtype, rngs) for _ in range(DEPTH)])
            self.final_norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, dtype=dtype, rngs=rngs)
            self.classifier = nnx.Linear(WIDTH, CLASSES, dtype=dtype, rngs=rngs)

        def __call__(self, image):
            x = self.patches(image)
            x = x.reshape(x.shape[0], -1, WIDTH)
            token = jnp.broadcast_to(self.cls_token.astype(self.dtype), (x.shape[0], 1, WIDTH))
            x = jnp.concatenate([token, x], axis=1) + self.position_embeddings.astype(self.dtype)
            for block in self.blocks:
                x = block(x)
            return self.classifier(self.final_norm(x)[:, 0]).astype(jnp.float32)

    model = ViT(patches=16, rngs=rngs)

    def create(model):
        schedule = optax.warmup_cosine_decay_schedule(1e-4, 1e-3, warmup_steps=2, decay_steps=100)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, image, labels):
        def loss_fn(model):
            one_hot = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), 0.1)
            return optax.softmax_cross_entropy(model(image), one_hot).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


def block_rows(index):
    kinds = {
        "norm_1": (layer_norm, "LayerNorm_0", "norm1"),
        "attention": (attention, "MultiHeadDotProductAttention_0", "attention"),
        "norm_2": (layer_norm, "LayerNorm_1", "norm2"),
        "mlp_1": (linear, "Dense_0", "fc1"),
        "mlp_2": (linear, "Dense_1", "fc2"),
    }
    for name, (row, linen, nnx) in kinds.items():
        yield row(
            f"block_{index}.{name}",
            haiku=f"vi_t/block_{index}/{name}",
            linen=f"encoderblock_{index}/{linen}",
            nnx=f"blocks.{index}.{nnx}",
        )


CASE = Case(
    guide="none: vision transformer of Dosovitskiy et al., 2020 (arXiv:2010.11929)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"image": "float32[2,32,32,3]", "labels": "int32[2]:10"},
    methods={"__call__": ("image",)},
    loss=loss,
    layers=(
        conv("patches", haiku="vi_t/patch_embedding", linen="embedding", nnx="patches"),
        parameter("token", haiku="vi_t/cls", linen="cls", nnx="cls_token"),
        parameter(
            "positions",
            layouts={"nnx": {"": Squeeze((-3,))}},
            haiku="vi_t/positions",
            linen="positions",
            nnx="position_embeddings",
        ),
        *(row for index in range(DEPTH) for row in block_rows(index)),
        layer_norm("norm", haiku="vi_t/norm", linen="encoder_norm", nnx="final_norm"),
        linear("head", haiku="vi_t/head", linen="head", nnx="classifier"),
    ),
)
