"""`hk.nets.MobileNetV1` (dm-haiku) with five blocks against NNX: depthwise kernels are grouped convolutions there."""

import haiku as hk
from flax import nnx
from published_pair import Pair

STRIDES, CHANNELS = (1, 2, 1, 2, 1), (16, 24, 24, 32, 32)


def published():
    def forward(image, is_training):
        return hk.nets.MobileNetV1(STRIDES, CHANNELS, num_classes=7)(image, is_training)

    return hk.transform_with_state(forward)


class ConvNorm(nnx.Module):
    def __init__(self, inputs, outputs, size, stride, padding, groups, rngs):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=padding,
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(outputs, momentum=0.999, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


class Port(nnx.Module):
    def __init__(self, rngs):
        layers, width = [ConvNorm(3, 32, 3, 2, "VALID", 1, rngs)], 32
        for stride, channels in zip(STRIDES, CHANNELS, strict=True):
            layers.append(ConvNorm(width, width, 3, stride, 1, width, rngs))
            layers.append(ConvNorm(width, channels, 1, 1, "VALID", 1, rngs))
            width = channels
        self.features = nnx.List(layers)
        self.classifier = nnx.Linear(width, 7, rngs=rngs)

    def __call__(self, image):
        x = image
        for layer in self.features:
            x = layer(x)
        return self.classifier(x.mean((1, 2)))


def by_hand(left):
    found = {}

    def put(old_conv, old_norm, new):
        found[f"{new}.conv.kernel"] = left[f"mobile_net_v1/{old_conv}/w"]
        old = f"mobile_net_v1/{old_norm}"
        found[f"{new}.norm.scale"] = left[f"{old}/scale"].ravel()
        found[f"{new}.norm.bias"] = left[f"{old}/offset"].ravel()
        found[f"{new}.norm.mean"] = left[f"{old}/~/mean_ema/average"].ravel()
        found[f"{new}.norm.var"] = left[f"{old}/~/var_ema/average"].ravel()

    put("conv2_d", "batch_norm", "features.0")
    for index in range(len(STRIDES)):
        block = "mobile_net_v1_block" + (f"_{index}" if index else "")
        put(f"{block}/depthwise_conv", f"{block}/batch_norm", f"features.{2 * index + 1}")
        put(f"{block}/pointwise_conv", f"{block}/batch_norm_1", f"features.{2 * index + 2}")
    return found | {
        "classifier.kernel": left["mobile_net_v1/logits/w"],
        "classifier.bias": left["mobile_net_v1/logits/b"],
    }


PAIR = Pair(published, Port, {"image": "float32[2,24,24,3]"}, "same", by_hand)
