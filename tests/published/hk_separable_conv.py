"""`hk.SeparableDepthwiseConv2D` (dm-haiku) against two grouped Linen convolutions."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair


def published():
    def forward(x):
        x = hk.SeparableDepthwiseConv2D(channel_multiplier=2, kernel_shape=(3, 5), stride=2)(x)
        return hk.Conv2D(4, kernel_shape=1)(x)

    return hk.without_apply_rng(hk.transform(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 1), 2, feature_group_count=3, use_bias=False, name="vertical")(x)
        x = nn.Conv(6, (1, 5), feature_group_count=6, name="horizontal")(x)
        return nn.Conv(4, (1, 1), name="pointwise")(x)


def by_hand(left):
    at = "separable_depthwise_conv2_d/~/depthwise_conv2_d"
    return {
        "vertical/kernel": left[f"{at}/w"],
        "horizontal/kernel": left[f"{at}_1/w"],
        "horizontal/bias": left[f"{at}_1/b"],
        "pointwise/kernel": left["conv2_d/w"],
        "pointwise/bias": left["conv2_d/b"],
    }


PAIR = Pair(published, Port, {"x": "float32[2,9,9,3]"}, "same", by_hand)
