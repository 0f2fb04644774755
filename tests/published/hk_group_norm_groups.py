"""`hk.GroupNorm` (dm-haiku) in a residual block against Linen with the size of a group taken for their number."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair


def published():
    def forward(x):
        x = hk.Conv2D(8, 3)(x)
        y = hk.Conv2D(8, 3)(hk.GroupNorm(groups=2)(x))
        return x + hk.Conv2D(8, 3)(hk.GroupNorm(groups=2)(y))

    return hk.without_apply_rng(hk.transform(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3))(x)
        y = nn.Conv(8, (3, 3))(nn.GroupNorm(num_groups=None, group_size=2, epsilon=1e-5)(x))
        return x + nn.Conv(8, (3, 3))(nn.GroupNorm(num_groups=None, group_size=2, epsilon=1e-5)(y))


def by_hand(left):
    found = {}
    for index, end in enumerate(("", "_1", "_2")):
        found[f"Conv_{index}/kernel"], found[f"Conv_{index}/bias"] = left[f"conv2_d{end}/w"], left[f"conv2_d{end}/b"]
    for index, end in enumerate(("", "_1")):
        found[f"GroupNorm_{index}/scale"] = left[f"group_norm{end}/scale"]
        found[f"GroupNorm_{index}/bias"] = left[f"group_norm{end}/offset"]
    return found


PAIR = Pair(
    published,
    Port,
    {"x": "float32[2,6,6,3]"},
    "different",
    by_hand,
    bug="four groups of two in place of two groups of four",
)
