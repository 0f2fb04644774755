"""`hk.GroupNorm`, `hk.InstanceNorm`, `hk.LayerNorm`, `hk.RMSNorm` and `hk.Bias` (dm-haiku) against NNX's."""

import haiku as hk
from flax import nnx
from published_pair import Pair


def published():
    def forward(x):
        x = hk.GroupNorm(groups=4)(hk.Conv2D(8, 3)(x))
        x = hk.Bias(bias_dims=[-1])(x)
        x = hk.InstanceNorm(True, True)(hk.Conv2D(8, 3)(x))
        x = hk.LayerNorm(-1, True, True)(hk.Conv2D(8, 3, stride=2)(x))
        return hk.Linear(3)(hk.RMSNorm(-1)(x.mean((1, 2))))

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        def conv(inputs, stride=1):
            return nnx.Conv(inputs, 8, (3, 3), stride, rngs=rngs)

        self.conv1, self.gn = conv(2), nnx.GroupNorm(8, num_groups=4, epsilon=1e-5, rngs=rngs)
        self.offset = nnx.Param(nnx.initializers.zeros(rngs.params(), (8,)))
        self.conv2, self.inorm = conv(8), nnx.InstanceNorm(8, epsilon=1e-5, rngs=rngs)
        self.conv3, self.ln = conv(8, 2), nnx.LayerNorm(8, epsilon=1e-5, rngs=rngs)
        self.rms = nnx.RMSNorm(8, epsilon=1e-5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.offset + self.gn(self.conv1(x))
        x = self.inorm(self.conv2(x))
        return self.head(self.rms(self.ln(self.conv3(x)).mean((1, 2))))


def by_hand(left):
    found = {"offset": left["bias/b"], "rms.scale": left["rms_norm/scale"]}
    for old, new in (("conv2_d", "conv1"), ("conv2_d_1", "conv2"), ("conv2_d_2", "conv3"), ("linear", "head")):
        found[f"{new}.kernel"], found[f"{new}.bias"] = left[f"{old}/w"], left[f"{old}/b"]
    for old, new in (("group_norm", "gn"), ("instance_norm", "inorm"), ("layer_norm", "ln")):
        found[f"{new}.scale"], found[f"{new}.bias"] = left[f"{old}/scale"], left[f"{old}/offset"]
    return found


PAIR = Pair(published, Port, {"x": "float32[2,8,8,2]"}, "same", by_hand)
