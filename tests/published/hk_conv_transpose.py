"""`hk.Conv2DTranspose` (dm-haiku) as a decoder against `nnx.ConvTranspose`."""

import haiku as hk
import jax
import numpy as np
from flax import nnx
from published_pair import Pair


def published():
    def forward(z):
        x = jax.nn.relu(hk.Linear(3 * 3 * 8)(z)).reshape(-1, 3, 3, 8)
        x = jax.nn.relu(hk.Conv2DTranspose(6, kernel_shape=3, stride=2)(x))
        return jax.nn.sigmoid(hk.Conv2DTranspose(2, kernel_shape=(4, 3), stride=2, padding="VALID")(x))

    return hk.without_apply_rng(hk.transform(forward))


class Port(nnx.Module):
    def __init__(self, rngs):
        self.project = nnx.Linear(4, 72, rngs=rngs)
        self.up1 = nnx.ConvTranspose(8, 6, (3, 3), strides=2, rngs=rngs)
        self.up2 = nnx.ConvTranspose(6, 2, (4, 3), strides=2, padding="VALID", rngs=rngs)

    def __call__(self, z):
        x = nnx.relu(self.project(z)).reshape(z.shape[0], 3, 3, 8)
        return nnx.sigmoid(self.up2(nnx.relu(self.up1(x))))


def by_hand(left):
    found = {"project.kernel": left["linear/w"], "project.bias": left["linear/b"]}
    for old, new in (("conv2_d_transpose", "up1"), ("conv2_d_transpose_1", "up2")):
        found[f"{new}.kernel"] = np.swapaxes(left[f"{old}/w"], 2, 3)
        found[f"{new}.bias"] = left[f"{old}/b"]
    return found


PAIR = Pair(published, Port, {"z": "float32[3,4]"}, "same", by_hand)
