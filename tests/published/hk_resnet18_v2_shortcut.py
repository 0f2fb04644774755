"""`hk.nets.ResNet18(resnet_v2=True)` (dm-haiku) against Linen blocks whose shortcut skips the norm, as in version 1."""

import flax.linen as nn
import haiku as hk
from published_pair import Pair

GROUPS = ((64, 1), (128, 2), (256, 2), (512, 2))


def published():
    return hk.transform_with_state(lambda image, is_training: hk.nets.ResNet18(10, resnet_v2=True)(image, is_training))


class PreActBlock(nn.Module):
    width: int
    stride: int
    train: bool

    @nn.compact
    def __call__(self, x):
        norm = {"use_running_average": not self.train, "momentum": 0.9}
        y = nn.relu(nn.BatchNorm(name="bn1", **norm)(x))
        shortcut = x
        if x.shape[-1] != self.width:
            # The published block projects relu(bn1(x)).
            shortcut = nn.Conv(self.width, (1, 1), self.stride, use_bias=False, name="proj")(x)
        y = nn.Conv(self.width, (3, 3), self.stride, use_bias=False, name="conv1")(y)
        y = nn.relu(nn.BatchNorm(name="bn2", **norm)(y))
        return shortcut + nn.Conv(self.width, (3, 3), use_bias=False, name="conv2")(y)


class Port(nn.Module):
    @nn.compact
    def __call__(self, image, train=False):
        x = nn.Conv(64, (7, 7), 2, use_bias=False, name="stem")(image)
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, (width, stride) in enumerate(GROUPS):
            for index in range(2):
                x = PreActBlock(width, stride if index == 0 else 1, train, name=f"stage{stage}_{index}")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="last_bn")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def by_hand(left):
    found = {}

    def put_norm(old, new):
        old = f"res_net18/~/{old}"
        found[f"{new}/scale"] = left[f"{old}/scale"].ravel()
        found[f"{new}/bias"] = left[f"{old}/offset"].ravel()
        found[f"{new}/mean"] = left[f"{old}/~/mean_ema/average"].ravel()
        found[f"{new}/var"] = left[f"{old}/~/var_ema/average"].ravel()

    for group in range(4):
        for block in range(2):
            old, new = f"block_group_{group}/~/block_{block}/~", f"stage{group}_{block}"
            for index in range(2):
                found[f"{new}/conv{index + 1}/kernel"] = left[f"res_net18/~/{old}/conv_{index}/w"]
                put_norm(f"{old}/batchnorm_{index}", f"{new}/bn{index + 1}")
            if group and not block:
                found[f"{new}/proj/kernel"] = left[f"res_net18/~/{old}/shortcut_conv/w"]
    put_norm("final_batchnorm", "last_bn")
    found["stem/kernel"] = left["res_net18/~/initial_conv/w"]
    return found | {"head/kernel": left["res_net18/~/logits/w"], "head/bias": left["res_net18/~/logits/b"]}


PAIR = Pair(
    published,
    Port,
    {"image": "float32[2,32,32,3]"},
    "different",
    by_hand,
    bug="the shortcut projects the block's input, not its normalised input",
)
