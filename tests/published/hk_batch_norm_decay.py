"""`hk.BatchNorm` (dm-haiku) in a convolutional net against Linen: the decay is taken for its complement."""

import flax.linen as nn
import haiku as hk
import jax
from published_pair import Pair


def published():
    def forward(x, is_training):
        for channels in (6, 4):
            x = hk.Conv2D(channels, 3, stride=2, with_bias=False)(x)
            x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.99)(x, is_training)
            x = hk.max_pool(jax.nn.leaky_relu(x), (2, 2, 1), (1, 1, 1), "VALID")
        return hk.Linear(2)(hk.Flatten()(x))

    return hk.without_apply_rng(hk.transform_with_state(forward))


class Port(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for channels in (6, 4):
            x = nn.Conv(channels, (3, 3), 2, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.01)(x)
            x = nn.max_pool(nn.leaky_relu(x), (2, 2))
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


def by_hand(left):
    found = {"Dense_0/kernel": left["linear/w"], "Dense_0/bias": left["linear/b"]}
    for index, end in enumerate(("", "_1")):
        norm = f"batch_norm{end}"
        found[f"Conv_{index}/kernel"] = left[f"conv2_d{end}/w"]
        found[f"BatchNorm_{index}/scale"] = left[f"{norm}/scale"].ravel()
        found[f"BatchNorm_{index}/bias"] = left[f"{norm}/offset"].ravel()
        found[f"BatchNorm_{index}/mean"] = left[f"{norm}/~/mean_ema/average"].ravel()
        found[f"BatchNorm_{index}/var"] = left[f"{norm}/~/var_ema/average"].ravel()
    return found


PAIR = Pair(
    published,
    Port,
    {"x": "float32[4,12,12,3]"},
    "different",
    by_hand,
    bug="the running averages keep 0.01 of their old value in place of 0.99",
    outputs_differ=False,
)
