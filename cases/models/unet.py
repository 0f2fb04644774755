"""U-Net: three levels with group norm, transposed convolutions up and the skipped values beside; in bfloat16."""

from equiv.case import Case
from equiv.layers import conv, conv_transpose, group_norm

WIDTHS, GROUPS = (8, 16, 32), 4


def haiku():
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import jmp
    import optax

    class ResBlock(hk.Module):
        def __init__(self, width: int, name=None):
            super().__init__(name=name)
            self.width = width

        def __call__(self, x):
            h = jax.nn.silu(hk.GroupNorm(GROUPS, name="norm_1")(x))
            h = hk.Conv2D(self.width, 3, name="conv_1")(h)
            h = jax.nn.silu(hk.GroupNorm(GROUPS, name="norm_2")(h))
            h = hk.Conv2D(self.width, 3, name="conv_2")(h)
            if x.shape[-1] != self.width:
                x = hk.Conv2D(self.width, 1, name="shortcut")(x)
            return x + h

    class UNet(hk.Module):
        def __call__(self, image):
            x, skips = hk.Conv2D(WIDTHS[0], 3, name="stem")(image), []
            for level, width in enumerate(WIDTHS[:-1]):
                x = ResBlock(width, name=f"down_{level}")(x)
                skips.append(x)
                x = hk.Conv2D(width, 3, stride=2, name=f"downsample_{level}")(x)
            x = ResBlock(WIDTHS[-1], name="middle")(x)
            for level in reversed(range(len(skips))):
                x = hk.Conv2DTranspose(WIDTHS[level], 2, stride=2, name=f"upsample_{level}")(x)
                x = ResBlock(WIDTHS[level], name=f"up_{level}")(jnp.concatenate([x, skips[level]], axis=-1))
            x = jax.nn.silu(hk.GroupNorm(GROUPS, name="norm")(x))
            return hk.Conv2D(3, 3, name="out")(x).astype(jnp.float32)

    def forward(image):
        half = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
        norm = jmp.get_policy("params=float32,compute=float32,output=bfloat16")
        with hk.mixed_precision.push_policy(UNet, half), hk.mixed_precision.push_policy(hk.GroupNorm, norm):
            return UNet(name="unet")(image)

    model = hk.without_apply_rng(hk.transform(forward))
    schedule = optax.warmup_constant_schedule(1e-4, 1e-3, warmup_steps=3)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))

    @jax.jit
    def train_step(params, opt_state, image, target):
        def loss_fn(params):
            return jnp.mean(jnp.square(model.apply(params, image) - target))

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

    class ResBlock(nn.Module):
        width: int
        dtype: jnp.dtype

        @nn.compact
        def __call__(self, x):
            h = nn.silu(nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype)(x))
            h = nn.Conv(self.width, (3, 3), dtype=self.dtype)(h)
            h = nn.silu(nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype)(h))
            h = nn.Conv(self.width, (3, 3), dtype=self.dtype)(h)
            if x.shape[-1] != self.width:
                x = nn.Conv(self.width, (1, 1), dtype=self.dtype, name="shortcut")(x)
            return x + h

    class UNet(nn.Module):
        dtype: jnp.dtype = jnp.bfloat16

        @nn.compact
        def __call__(self, image):
            x, skips = nn.Conv(WIDTHS[0], (3, 3), dtype=self.dtype, name="stem")(image), []
            for width in WIDTHS[:-1]:
                x = ResBlock(width, self.dtype)(x)
                skips.append(x)
                x = nn.Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(x)
            x = ResBlock(WIDTHS[-1], self.dtype)(x)
            for width in reversed(WIDTHS[:-1]):
                x = nn.ConvTranspose(width, (2, 2), strides=(2, 2), dtype=self.dtype)(x)
                x = ResBlock(width, self.dtype)(jnp.concatenate([x, skips.pop()], axis=-1))
            x = nn.silu(nn.GroupNorm(GROUPS, epsilon=1e-5, dtype=self.dtype)(x))
            return nn.Conv(3, (3, 3), dtype=self.dtype, name="out")(x).astype(jnp.float32)

    model = UNet()

    def create(params):
        schedule = optax.warmup_constant_schedule(1e-4, 1e-3, warmup_steps=3)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
        return train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def train_step(state, image, target):
        def loss_fn(params):
            return jnp.mean((state.apply_fn({"params": params}, image) - target) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return model, train_step, create


def nnx(rngs):
    from functools import partial

    import jax.numpy as jnp
    import optax
    from flax import nnx

    class ResBlock(nnx.Module):
        def __init__(self, inputs: int, width: int, conv, norm):
            self.norm1, self.conv1 = norm(inputs), conv(inputs, width, (3, 3))
            self.norm2, self.conv2 = norm(width), conv(width, width, (3, 3))
            self.shortcut = conv(inputs, width, (1, 1)) if inputs != width else None

        def __call__(self, x):
            h = self.conv1(nnx.silu(self.norm1(x)))
            h = self.conv2(nnx.silu(self.norm2(h)))
            return h + (x if self.shortcut is None else self.shortcut(x))

    class UNet(nnx.Module):
        def __init__(self, *, dtype=jnp.bfloat16, rngs: nnx.Rngs):
            conv = partial(nnx.Conv, dtype=dtype, rngs=rngs)
            norm = partial(nnx.GroupNorm, num_groups=GROUPS, epsilon=1e-5, dtype=dtype, rngs=rngs)
            inner, last = WIDTHS[:-1], WIDTHS[-1]
            self.stem = conv(3, WIDTHS[0], (3, 3))
            before = (WIDTHS[0], *inner[:-1])
            self.downs = nnx.List([ResBlock(m, n, conv, norm) for m, n in zip(before, inner, strict=True)])
            self.shrink = nnx.List([conv(n, n, (3, 3), strides=2) for n in inner])
            self.middle = ResBlock(inner[-1], last, conv, norm)
            above = (*inner[1:], last)
            self.grow = nnx.List(
                [
                    nnx.ConvTranspose(m, n, (2, 2), strides=(2, 2), dtype=dtype, rngs=rngs)
                    for m, n in zip(above, inner, strict=True)
                ]
            )
            self.ups = nnx.List([ResBlock(2 * n, n, conv, norm) for n in inner])
            self.final_norm, self.final_conv = norm(WIDTHS[0]), conv(WIDTHS[0], 3, (3, 3))

        def __call__(self, image):
            x, skips = self.stem(image), []
            for block, shrink in zip(self.downs, self.shrink, strict=True):
                x = block(x)
                skips.append(x)
                x = shrink(x)
            x = self.middle(x)
            for level in (1, 0):
                x = self.ups[level](jnp.concatenate([self.grow[level](x), skips[level]], axis=-1))
            return self.final_conv(nnx.silu(self.final_norm(x))).astype(jnp.float32)

    model = UNet(rngs=rngs)

    def create(model):
        schedule = optax.warmup_constant_schedule(1e-4, 1e-3, warmup_steps=3)
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, image, target):
        def loss_fn(model):
            return jnp.mean((model(image) - target) ** 2)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return model, train_step, create


def loss(outputs, batch):
    import jax.numpy as jnp

    return jnp.mean((outputs - batch["target"]) ** 2)


def block_rows(haiku, linen, nnx, shortcut=False):
    kinds = {
        "norm_1": (group_norm, "GroupNorm_0", "norm1"),
        "conv_1": (conv, "Conv_0", "conv1"),
        "norm_2": (group_norm, "GroupNorm_1", "norm2"),
        "conv_2": (conv, "Conv_1", "conv2"),
        **({"shortcut": (conv, "shortcut", "shortcut")} if shortcut else {}),
    }
    for name, (row, ours, theirs) in kinds.items():
        yield row(f"{haiku}.{name}", haiku=f"unet/{haiku}/{name}", linen=f"{linen}/{ours}", nnx=f"{nnx}.{theirs}")


CASE = Case(
    guide="none: U-Net of Ronneberger et al., 2015 (arXiv:1505.04597), with the blocks of Ho et al., 2020",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"image": "float32[2,16,16,3]", "target": "float32[2,16,16,3]"},
    methods={"__call__": ("image",)},
    loss=loss,
    layers=(
        conv("stem", haiku="unet/stem", linen="stem", nnx="stem"),
        *block_rows("down_0", "ResBlock_0", "downs.0"),
        conv("downsample_0", haiku="unet/downsample_0", linen="Conv_0", nnx="shrink.0"),
        *block_rows("down_1", "ResBlock_1", "downs.1", shortcut=True),
        conv("downsample_1", haiku="unet/downsample_1", linen="Conv_1", nnx="shrink.1"),
        *block_rows("middle", "ResBlock_2", "middle", shortcut=True),
        conv_transpose("upsample_1", haiku="unet/upsample_1", linen="ConvTranspose_0", nnx="grow.1"),
        *block_rows("up_1", "ResBlock_3", "ups.1", shortcut=True),
        conv_transpose("upsample_0", haiku="unet/upsample_0", linen="ConvTranspose_1", nnx="grow.0"),
        *block_rows("up_0", "ResBlock_4", "ups.0", shortcut=True),
        group_norm("norm", haiku="unet/norm", linen="GroupNorm_0", nnx="final_norm"),
        conv("out", haiku="unet/out", linen="out", nnx="final_conv"),
    ),
)
