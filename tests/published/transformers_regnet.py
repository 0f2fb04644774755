"""RegNet of transformers against an NNX port that trains every batch norm.

transformers 4.57 calls the layers of a block without `deterministic`, so that only its stem and its shortcuts use the
statistics of a batch.
"""

import jax.numpy as jnp
from flax import nnx
from published_names import rename
from published_pair import Pair

SIZES, GROUP = (16, 24), 8
NEEDS = ("transformers==4.57.6",)


def published():
    from flax import linen as nn
    from transformers.models.regnet import RegNetConfig
    from transformers.models.regnet.modeling_flax_regnet import FlaxRegNetModule

    config = RegNetConfig(
        embedding_size=8, hidden_sizes=SIZES, depths=(1, 2), groups_width=GROUP, layer_type="y", num_channels=3
    )

    class RegNet(nn.Module):
        @nn.compact
        def __call__(self, image, deterministic=True):
            model = FlaxRegNetModule(config, name="regnet")
            found = model(image, deterministic=deterministic, return_dict=False)[0]
            return found.transpose(0, 2, 3, 1)  # the package returns channels first

    return RegNet()


class ConvNorm(nnx.Module):
    def __init__(self, inputs, outputs, size, stride, groups, rngs):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=size // 2,
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Block(nnx.Module):
    def __init__(self, inputs, outputs, stride, rngs):
        self.narrow = ConvNorm(inputs, outputs, 1, 1, 1, rngs)
        self.middle = ConvNorm(outputs, outputs, 3, stride, outputs // GROUP, rngs)
        self.squeeze = nnx.Linear(outputs, inputs // 4, rngs=rngs)
        self.excite = nnx.Linear(inputs // 4, outputs, rngs=rngs)
        self.last = ConvNorm(outputs, outputs, 1, 1, 1, rngs)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, 1, rngs) if stride != 1 else None

    def __call__(self, x):
        y = nnx.relu(self.middle(nnx.relu(self.narrow(x))))
        gate = nnx.sigmoid(self.excite(nnx.relu(self.squeeze(jnp.mean(y, axis=(1, 2))))))
        return nnx.relu(self.last(y * gate[:, None, None, :]) + (x if self.shortcut is None else self.shortcut(x)))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.stem = ConvNorm(3, 8, 3, 2, 1, rngs)
        self.blocks = nnx.List([Block(8, 16, 2, rngs), Block(16, 24, 2, rngs), Block(24, 24, 1, rngs)])

    def __call__(self, image):
        x = nnx.relu(self.stem(image))
        for block in self.blocks:
            x = block(x)
        return x


def by_hand(left):
    pairs = {"regnet/embedder/embedder": "stem"}
    for place, number in (("0/layers/0", 0), ("1/layers/0", 1), ("1/layers/1", 2)):
        old, new = f"regnet/encoder/stages/{place}", f"blocks.{number}"
        pairs |= {f"{old}/layer/0": f"{new}.narrow", f"{old}/layer/1": f"{new}.middle", f"{old}/layer/3": f"{new}.last"}
        pairs |= {f"{old}/shortcut": f"{new}.shortcut"} if number < 2 else {}
    names = {}
    for old, new in pairs.items():
        names |= {f"{old}/convolution": f"{new}.conv", f"{old}/normalization": f"{new}.norm"}
    found = rename(left, names)
    for place, number in (("0/layers/0", 0), ("1/layers/0", 1), ("1/layers/1", 2)):
        for old, new in ((0, "squeeze"), (2, "excite")):
            layer = f"regnet/encoder/stages/{place}/layer/2/attention/{old}"
            found[f"blocks.{number}.{new}.kernel"] = left[f"{layer}/kernel"][0, 0]
            found[f"blocks.{number}.{new}.bias"] = left[f"{layer}/bias"]
    return found


BUG = "every batch norm uses the statistics of the batch in train mode"
PAIR = Pair(published, Port, {"image": "float32[2,16,16,3]"}, "different", by_hand, bug=BUG, needs=NEEDS)
