"""brax's `VisionMLP`, a network of images and a vector with spatial softmax, against Haiku modules."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from published_pair import Pair


def published():
    from brax.training.networks import VisionMLP

    return VisionMLP(
        (16, 3),
        state_obs_key="state",
        cnn_output_channels=(6, 5),
        cnn_kernel_size=(4, 3),
        cnn_stride=(2, 1),
        cnn_global_pool="spatial_softmax",
        layer_norm=True,
    )


def port():
    def keypoints(features):
        batch, height, width, channels = features.shape
        weights = jax.nn.softmax(features.reshape(batch, height * width, channels), axis=1)
        weights = weights.reshape(features.shape)
        rows, columns = np.linspace(-1, 1, height, dtype="float32"), np.linspace(-1, 1, width, dtype="float32")
        return jnp.einsum("bhwc,h->bc", weights, rows), jnp.einsum("bhwc,w->bc", weights, columns)

    def forward(data):
        found = []
        for view in ("pixels/left", "pixels/right"):
            x = data[view]
            for channels, size, stride in ((6, 4, 2), (5, 3, 1)):
                x = jax.nn.relu(hk.Conv2D(channels, size, stride)(x))
            found += keypoints(x)
        x = jax.nn.relu(hk.Linear(16)(jnp.concatenate([*found, data["state"]], -1)))
        return hk.Linear(3)(hk.LayerNorm(-1, True, True, eps=1e-6)(x))

    return hk.without_apply_rng(hk.transform(forward))


def by_hand(left):
    names = {
        "CNN_0/Conv_0": "conv2_d",
        "CNN_0/Conv_1": "conv2_d_1",
        "CNN_1/Conv_0": "conv2_d_2",
        "CNN_1/Conv_1": "conv2_d_3",
        "MLP_0/hidden_0": "linear",
        "MLP_0/hidden_1": "linear_1",
    }
    found = {
        f"{new}/{short}": left[f"{old}/{leaf}"]
        for old, new in names.items()
        for short, leaf in (("w", "kernel"), ("b", "bias"))
    }
    found["layer_norm/scale"] = left["MLP_0/LayerNorm_0/scale"]
    return found | {"layer_norm/offset": left["MLP_0/LayerNorm_0/bias"]}


BATCH = {
    "data": {"pixels/left": "float32[2,12,12,3]", "pixels/right": "float32[2,12,12,3]", "state": "float32[2,4]"},
}
PAIR = Pair(published, port, BATCH, "same", by_hand, needs=("brax==0.14.2",))
