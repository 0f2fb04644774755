"""ResNet-50: the network that Haiku brings, against the same one written in Linen and NNX; computed in bfloat16."""

from equiv.case import Case, zero_debias
from equiv.layers import batch_norm, conv, linear

STAGES, CLASSES = (3, 4, 6, 3), 10


def haiku():
    import haiku as hk
    import jax
    import jmp
    import optax

    def forward(image, training):
        half = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        norm = jmp.get_policy("params=float32,compute=float32,output=bfloat16")
        with (
            hk.mixed_precision.push_policy(hk.nets.ResNet50, half),
            hk.mixed_precision.push_policy(hk.BatchNorm, norm),
        ):
            return hk.nets.ResNet50(CLASSES)(image, is_training=training)

    model = hk.transform_with_state(forward)
    schedule = optax.cosine_decay_schedule(1e-3, decay_steps=100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

    @jax.jit
    def train_step(params, state, opt_state, image, labels):
        def loss_fn(params):
            logits, new_state = model.apply(params, state, None, image, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new_state

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, loss

    return model, train_step, tx.init


def linen():
    from functools import partial
    from typing import Any

    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training import train_state

    class BottleneckBlock(nn.Module):
        features: int
        stride: int
        project: bool
        conv: Any
        norm: Any

        @nn.compact
        def __call__(self, x):
            residual = x
            y = nn.relu(self.norm()(self.conv(self.features, (1, 1))(x)))
            y = nn.relu(self.norm()(self.conv(self.features, (3, 3), self.stride)(y)))
            y = self.norm(scale_init=nn.initializers.zeros)(self.conv(4 * self.features, (1, 1))(y))
            if self.project:
                residual = self.conv(4 * self.features, (1, 1), self.stride, name="conv_proj")(residual)
                residual = self.norm(name="norm_proj")(residual)
            return nn.relu(residual + y)

    class ResNet(nn.Module):
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, image, training):
            conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
            norm = partial(nn.BatchNorm, use_running_average=not training, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
            x = conv(64, (7, 7), 2, name="conv_init")(image)
            x = nn.relu(norm(name="bn_init")(x))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
            for stage, blocks in enumerate(STAGES):
                for block in range(blocks):
                    stride = 2 if stage > 0 and block == 0 else 1
                    x = BottleneckBlock(64 * 2**stage, stride, block == 0, conv, norm)(x)
            x = jnp.mean(x, axis=(1, 2))
            return nn.Dense(CLASSES, dtype=self.dtype)(x).astype(jnp.float32)

    model = ResNet()

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def create(params, batch_stats):
        schedule = optax.cosine_decay_schedule(1e-3, decay_steps=100)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
        return TrainState.create(apply_fn=model.apply, params=params, tx=tx, batch_stats=batch_stats)

    @jax.jit
    def train_step(state, image, labels):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updates = state.apply_fn(variables, image, training=True, mutable="batch_stats")
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updates["batch_stats"]

        (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=batch_stats), loss

    return model, train_step, create


def nnx(rngs):
    from functools import partial

    import jax.numpy as jnp
    import optax
    from flax import nnx

    class Bottleneck(nnx.Module):
        def __init__(self, inputs: int, features: int, stride: int, conv, norm):
            self.conv1, self.norm1 = conv(inputs, features, (1, 1)), norm(features)
            self.conv2, self.norm2 = conv(features, features, (3, 3), strides=stride), norm(features)
            self.conv3 = conv(features, 4 * features, (1, 1))
            self.norm3 = norm(4 * features, scale_init=nnx.initializers.zeros)
            project = inputs != 4 * features
            self.shortcut = (
                nnx.Sequential(conv(inputs, 4 * features, (1, 1), strides=stride), norm(4 * features))
                if project
                else None
            )

        def __call__(self, x):
            y = nnx.relu(self.norm1(self.conv1(x)))
            y = nnx.relu(self.norm2(self.conv2(y)))
            y = self.norm3(self.conv3(y))
            return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    class ResNet(nnx.Module):
        def __init__(self, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            conv = partial(nnx.Conv, use_bias=False, dtype=dtype, rngs=rngs)
            norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)
            self.stem, self.stem_norm = conv(3, 64, (7, 7), strides=2), norm(64)
            blocks, inputs = [], 64
            for stage, number in enumerate(STAGES):
                for block in range(number):
                    features, stride = 64 * 2**stage, 2 if stage > 0 and block == 0 else 1
                    blocks.append(Bottleneck(inputs, features, stride, conv, norm))
                    inputs = 4 * features
            self.blocks = nnx.Sequential(*blocks)
            self.head = nnx.Linear(inputs, CLASSES, dtype=dtype, rngs=rngs)

        def __call__(self, image):
            x = nnx.relu(self.stem_norm(self.stem(image)))
            x = self.blocks(nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME"))
            return self.head(x.mean((1, 2))).astype(jnp.float32)

    model = ResNet(rngs=rngs)

    def create(model):
        schedule = optax.cosine_decay_schedule(1e-3, decay_steps=100)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, image, labels):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(image), labels).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"]).mean()


PLACES = [(stage, block) for stage, blocks in enumerate(STAGES) for block in range(blocks)]


def block_rows(stage, block):
    index = PLACES.index((stage, block))
    haiku = f"res_net50/~/block_group_{stage}/~/block_{block}/~"
    linen, nnx = f"BottleneckBlock_{index}", f"blocks.layers.{index}"
    for one in range(3):
        path = f"block_{index}.conv_{one}"
        yield conv(path, haiku=f"{haiku}/conv_{one}", linen=f"{linen}/Conv_{one}", nnx=f"{nnx}.conv{one + 1}")
        yield batch_norm(
            f"block_{index}.batchnorm_{one}",
            haiku=f"{haiku}/batchnorm_{one}",
            linen=f"{linen}/BatchNorm_{one}",
            nnx=f"{nnx}.norm{one + 1}",
        )
    if block == 0:
        yield conv(
            f"block_{index}.shortcut_conv",
            haiku=f"{haiku}/shortcut_conv",
            linen=f"{linen}/conv_proj",
            nnx=f"{nnx}.shortcut.layers.0",
        )
        yield batch_norm(
            f"block_{index}.shortcut_batchnorm",
            haiku=f"{haiku}/shortcut_batchnorm",
            linen=f"{linen}/norm_proj",
            nnx=f"{nnx}.shortcut.layers.1",
        )


CASE = Case(
    guide="none: ResNet-50 of He et al., 2015 (arXiv:1512.03385), as in hk.nets",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"image": "float32[4,64,64,3]", "labels": "int32[4]:10"},
    methods={"__call__": ("image",)},
    loss=loss,
    layers=(
        conv("initial_conv", haiku="res_net50/~/initial_conv", linen="conv_init", nnx="stem"),
        batch_norm("initial_batchnorm", haiku="res_net50/~/initial_batchnorm", linen="bn_init", nnx="stem_norm"),
        *(row for place in PLACES for row in block_rows(*place)),
        linear("logits", haiku="res_net50/~/logits", linen="Dense_0", nnx="head"),
    ),
    known_differences=tuple(
        one
        for layer in ("initial_batchnorm", *(row.path for place in PLACES for row in block_rows(*place)))
        if "batchnorm" in layer
        for one in zero_debias(layer, decay=0.9)
    ),
)
