"""Models for the tests of inference: a builder per library, and the expected leaf map, written by hand.

Libraries are imported inside the builders, as in cases.
"""

import re


def resnet_haiku(blocks=(3, 4, 6, 3), width=4, bottleneck=True):
    import haiku as hk

    def forward(x, is_training):
        channels = [width * 2**group * (4 if bottleneck else 1) for group in range(len(blocks))]
        net = hk.nets.ResNet(
            blocks, 10, bottleneck=bottleneck, channels_per_group=channels,
            use_projection=[bottleneck] + [True] * (len(blocks) - 1),
            strides=[1] + [2] * (len(blocks) - 1), bn_config={"decay_rate": 0.9},
            initial_conv_config={"output_channels": width},
        )  # fmt: skip
        return net(x, is_training)

    return hk.transform_with_state(forward)


def resnet_linen(blocks=(3, 4, 6, 3), width=4, bottleneck=True):
    import flax.linen as nn
    import jax

    class Block(nn.Module):
        features: int
        stride: int
        project: bool
        training: bool

        @nn.compact
        def __call__(self, x):
            def norm(name):
                return nn.BatchNorm(use_running_average=not self.training, momentum=0.9, epsilon=1e-5, name=name)

            def conv(features, size, stride, name):
                return nn.Conv(features, (size, size), (stride, stride), use_bias=False, name=name)

            shortcut = x
            if self.project:
                shortcut = norm("shortcut_norm")(conv(self.features, 1, self.stride, "shortcut_conv")(x))
            inner = self.features // 4 if bottleneck else self.features
            sizes = (1, 3, 1) if bottleneck else (3, 3)
            for index, size in enumerate(sizes):
                last = index == len(sizes) - 1
                stride = self.stride if index == (1 if bottleneck else 0) else 1
                x = conv(self.features if last else inner, size, stride, f"conv{index}")(x)
                x = norm(f"norm{index}")(x)
                x = x if last else jax.nn.relu(x)
            return jax.nn.relu(x + shortcut)

    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, x, is_training):
            x = nn.Conv(width, (7, 7), (2, 2), use_bias=False, name="first")(x)
            x = nn.BatchNorm(use_running_average=not is_training, momentum=0.9, epsilon=1e-5, name="first_norm")(x)
            x = nn.max_pool(jax.nn.relu(x), (3, 3), (2, 2), "SAME")
            for group, number in enumerate(blocks):
                features = width * 2**group * (4 if bottleneck else 1)
                for index in range(number):
                    project = index == 0 and (bottleneck or group > 0)
                    stride = 2 if index == 0 and group > 0 else 1
                    x = Block(features, stride, project, is_training, name=f"group{group}_block{index}")(x)
            return nn.Dense(10, name="head")(x.mean((1, 2)))

    return ResNet()


def resnet_nnx(rngs, blocks=(3, 4, 6, 3), width=4, bottleneck=True):
    import flax.linen as nn
    import jax
    from flax import nnx

    def norm(features):
        return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def conv(inputs, features, size, stride):
        return nnx.Conv(inputs, features, (size, size), (stride, stride), use_bias=False, rngs=rngs)

    class Block(nnx.Module):
        def __init__(self, inputs, features, stride, project):
            inner = features // 4 if bottleneck else features
            self.shortcut = nnx.List([conv(inputs, features, 1, stride), norm(features)]) if project else None
            steps = (1, 3, 1) if bottleneck else (3, 3)
            widths = [inputs, *[inner] * (len(steps) - 1), features]
            at = 1 if bottleneck else 0
            self.convs = nnx.List(
                [conv(widths[i], widths[i + 1], size, stride if i == at else 1) for i, size in enumerate(steps)]
            )
            self.norms = nnx.List([norm(size) for size in widths[1:]])

        def __call__(self, x):
            shortcut = x if self.shortcut is None else self.shortcut[1](self.shortcut[0](x))
            for index, (layer, scaled) in enumerate(zip(self.convs, self.norms, strict=True)):
                x = scaled(layer(x))
                x = jax.nn.relu(x) if index < len(self.convs) - 1 else x
            return jax.nn.relu(x + shortcut)

    class ResNet(nnx.Module):
        def __init__(self):
            self.first, self.first_norm = conv(3, width, 7, 2), norm(width)
            layers, inputs = [], width
            for group, number in enumerate(blocks):
                features = width * 2**group * (4 if bottleneck else 1)
                for index in range(number):
                    stride = 2 if index == 0 and group > 0 else 1
                    layers.append(Block(inputs, features, stride, index == 0 and (bottleneck or group > 0)))
                    inputs = features
            self.blocks = nnx.List(layers)
            self.head = nnx.Linear(inputs, 10, rngs=rngs)

        def __call__(self, x):
            x = nn.max_pool(jax.nn.relu(self.first_norm(self.first(x))), (3, 3), (2, 2), "SAME")
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    return ResNet()


def resnet_truth(path, library, blocks=(3, 4, 6, 3)):
    """The path in Linen or NNX of a leaf of `hk.nets.ResNet`; None for statistics that only Haiku has."""
    if "hidden" in path or "counter" in path:
        return None
    leaf = {"w": "kernel", "b": "bias", "scale": "scale", "offset": "bias"}.get(path.rsplit("/", 1)[1])
    leaf = leaf or ("mean" if "mean_ema" in path else "var")
    path = path.removeprefix("res_net/~/").split("/~/mean_ema")[0].split("/~/var_ema")[0]
    dot = "/" if library == "linen" else "."
    if path.startswith("initial_conv"):
        return f"first{dot}{leaf}"
    if path.startswith("initial_batchnorm"):
        return f"first_norm{dot}{leaf}"
    if path.startswith("logits"):
        return f"head{dot}{leaf}"
    group, index, layer = re.match(r"block_group_(\d)/~/block_(\d+)/~/(\w+)", path).groups()
    if library == "linen":
        layer = re.sub(r"^batchnorm_", "norm", re.sub(r"^conv_", "conv", layer)).replace("batchnorm", "norm")
        return f"group{group}_block{index}/{layer}/{leaf}"
    number = sum(blocks[: int(group)]) + int(index)
    layer = {"shortcut_conv": "shortcut.0", "shortcut_batchnorm": "shortcut.1"}.get(layer) or re.sub(
        r"(conv|batchnorm)_(\d)", lambda found: f"{'convs' if found[1] == 'conv' else 'norms'}.{found[2]}", layer
    )
    return f"blocks.{number}.{layer}.{leaf}"


def transformer_haiku(layers=2, width=16, heads=2, vocabulary=32):
    import haiku as hk
    import jax
    import jax.numpy as jnp

    class Block(hk.Module):
        def __call__(self, x):
            init = hk.initializers.VarianceScaling()
            attend = hk.MultiHeadAttention(heads, width // heads, model_size=width, w_init=init, name="attend")
            y = hk.LayerNorm(-1, True, True, name="norm_a")(x)
            x = x + attend(y, y, y)
            y = hk.LayerNorm(-1, True, True, name="norm_b")(x)
            y = jax.nn.gelu(hk.Linear(4 * width, name="wide")(y))
            return x + hk.Linear(width, name="narrow")(y)

    def forward(x):
        y = hk.Embed(vocabulary, width, name="tokens")(x)
        y = y + hk.get_parameter("positions", (x.shape[1], width), init=jnp.zeros)
        for _ in range(layers):
            y = Block(name="block")(y)
        return hk.Linear(vocabulary, name="head")(hk.LayerNorm(-1, True, True, name="last")(y))

    return hk.without_apply_rng(hk.transform(forward))


def transformer_linen(layers=2, width=16, heads=2, vocabulary=32):
    import flax.linen as nn
    import jax

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.LayerNorm(epsilon=1e-5, name="norm_a")(x)
            x = x + nn.MultiHeadDotProductAttention(heads, name="attend")(y)
            y = nn.LayerNorm(epsilon=1e-5, name="norm_b")(x)
            return x + nn.Dense(width, name="narrow")(jax.nn.gelu(nn.Dense(4 * width, name="wide")(y)))

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Embed(vocabulary, width, name="tokens")(x)
            y = y + self.param("positions", nn.initializers.zeros, (x.shape[1], width))
            for index in range(layers):
                y = Block(name=f"block_{index}")(y)
            return nn.Dense(vocabulary, name="head")(nn.LayerNorm(epsilon=1e-5, name="last")(y))

    return Transformer()


def transformer_nnx(rngs, layers=2, width=16, heads=2, vocabulary=32, length=5):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self):
            self.norm_a = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
            self.attend = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
            self.norm_b = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
            self.wide = nnx.Linear(width, 4 * width, rngs=rngs)
            self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x):
            x = x + self.attend(self.norm_a(x))
            return x + self.narrow(jax.nn.gelu(self.wide(self.norm_b(x))))

    class Transformer(nnx.Module):
        def __init__(self):
            self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
            self.positions = nnx.Param(jnp.zeros((length, width)))
            self.blocks = nnx.List([Block() for _ in range(layers)])
            self.last = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
            self.head = nnx.Linear(width, vocabulary, rngs=rngs)

        def __call__(self, x):
            y = self.tokens(x) + self.positions
            for block in self.blocks:
                y = block(y)
            return self.head(self.last(y))

    return Transformer()


def transformer_truth(path, library):
    """The path in Linen or NNX of a leaf of the Haiku transformer."""
    path = path.removeprefix("~/")
    *scope, leaf = path.split("/")
    leaf = {"w": "kernel", "b": "bias", "offset": "bias", "embeddings": "embedding"}.get(leaf, leaf)
    scope = ["out" if name == "linear" else name for name in scope]
    if scope and scope[0].startswith("block"):
        number = scope[0].removeprefix("block").removeprefix("_") or "0"
        scope[0] = f"block_{number}" if library == "linen" else f"blocks.{number}"
    return ("/" if library == "linen" else ".").join([*scope, leaf])


def lstm_haiku(hidden=6):
    import haiku as hk

    def forward(x):
        core = hk.LSTM(hidden)
        outputs, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.Linear(3, name="head")(outputs)

    return hk.without_apply_rng(hk.transform(forward))


def lstm_linen(hidden=6):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="head")(nn.RNN(nn.OptimizedLSTMCell(hidden, name="cell"), time_major=True)(x))

    return Net()


def lstm_nnx(rngs, hidden=6, inputs=5):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(inputs, hidden, rngs=rngs), time_major=True, rngs=rngs)
            self.head = nnx.Linear(hidden, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.rnn(x))

    return Net()


def stack_haiku(layers=3, width=8):
    import haiku as hk
    import jax

    def forward(x):
        x = hk.Linear(width, name="first")(x)

        @hk.layer_stack(layers)
        def blocks(x):
            y = jax.nn.relu(hk.Linear(2 * width, name="wide")(x))
            return x + hk.Linear(width, name="narrow")(y)

        return hk.Linear(3, name="head")(blocks(x))

    return hk.without_apply_rng(hk.transform(forward))


def stack_linen(layers=3, width=8):
    import flax.linen as nn
    import jax

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            y = jax.nn.relu(nn.Dense(2 * width, name="wide")(x))
            return x + nn.Dense(width, name="narrow")(y), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(width, name="first")(x)
            scan = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=layers)
            x, _ = scan(name="blocks")(x, None)
            return nn.Dense(3, name="head")(x)

    return Net()


def stack_nnx(rngs, layers=3, width=8, inputs=5):
    import jax
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self):
            self.wide = nnx.Linear(width, 2 * width, rngs=rngs)
            self.narrow = nnx.Linear(2 * width, width, rngs=rngs)

        def __call__(self, x):
            return x + self.narrow(jax.nn.relu(self.wide(x)))

    class Net(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(inputs, width, rngs=rngs)
            self.blocks = nnx.List([Block() for _ in range(layers)])
            self.head = nnx.Linear(width, 3, rngs=rngs)

        def __call__(self, x):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return Net()
