"""`hk.nets.ResNet18` (dm-haiku) against NNX modules with the blocks in one list."""

import haiku as hk
import jax
from flax import nnx
from published_pair import Pair

GROUPS = ((64, 1), (128, 2), (256, 2), (512, 2))


def published():
    return hk.transform_with_state(lambda image, is_training: hk.nets.ResNet18(10)(image, is_training))


def conv(inputs, outputs, size, stride, rngs):
    return nnx.Conv(inputs, outputs, (size, size), stride, use_bias=False, rngs=rngs)


def norm(size, rngs):
    return nnx.BatchNorm(size, momentum=0.9, epsilon=1e-5, rngs=rngs)


class BasicBlock(nnx.Module):
    def __init__(self, inputs, outputs, stride, rngs):
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride, rngs), norm(outputs, rngs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3, 1, rngs), norm(outputs, rngs)
        layers = conv(inputs, outputs, 1, stride, rngs), norm(outputs, rngs)
        self.downsample = nnx.Sequential(*layers) if inputs != outputs else None

    def __call__(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(y)) + shortcut)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.stem, self.stem_bn = conv(3, 64, 7, 2, rngs), norm(64, rngs)
        blocks, width = [], 64
        for outputs, stride in GROUPS:
            for index in range(2):
                blocks.append(BasicBlock(width, outputs, stride if index == 0 else 1, rngs))
                width = outputs
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, image):
        x = nnx.relu(self.stem_bn(self.stem(image)))
        x = jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(axis=(1, 2)))


def by_hand(left):
    found = {}

    def put_conv(old, new):
        found[f"{new}.kernel"] = left[f"res_net18/~/{old}/w"]

    def put_norm(old, new):
        old = f"res_net18/~/{old}"
        found[f"{new}.scale"] = left[f"{old}/scale"].ravel()
        found[f"{new}.bias"] = left[f"{old}/offset"].ravel()
        found[f"{new}.mean"] = left[f"{old}/~/mean_ema/average"].ravel()
        found[f"{new}.var"] = left[f"{old}/~/var_ema/average"].ravel()

    put_conv("initial_conv", "stem")
    put_norm("initial_batchnorm", "stem_bn")
    for group in range(4):
        for block in range(2):
            old, new = f"block_group_{group}/~/block_{block}/~", f"blocks.{2 * group + block}"
            for index in range(2):
                put_conv(f"{old}/conv_{index}", f"{new}.conv{index + 1}")
                put_norm(f"{old}/batchnorm_{index}", f"{new}.bn{index + 1}")
            if group and not block:
                put_conv(f"{old}/shortcut_conv", f"{new}.downsample.layers.0")
                put_norm(f"{old}/shortcut_batchnorm", f"{new}.downsample.layers.1")
    return found | {"fc.kernel": left["res_net18/~/logits/w"], "fc.bias": left["res_net18/~/logits/b"]}


PAIR = Pair(published, Port, {"image": "float32[2,32,32,3]"}, "same", by_hand)
