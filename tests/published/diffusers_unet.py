"""The conditional UNet of diffusers against an NNX port with linear layers for 1x1 convolutions and a split GEGLU."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from published_names import fuse, rename
from published_pair import Pair

LOW, HIGH, HEADS, CONTEXT = 32, 64, 4, 16
NEEDS = ("diffusers==0.35.2",)
BATCH = {"sample": "float32[2,4,8,8]", "times": "int32[2]:1000", "context": f"float32[2,5,{CONTEXT}]"}
SIZES = {
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "block_out_channels": (LOW, HIGH),
    "layers_per_block": 1,
    "attention_head_dim": HEADS,
    "cross_attention_dim": CONTEXT,
}


def published():
    from diffusers.models.unets.unet_2d_condition_flax import FlaxUNet2DConditionModel
    from flax import linen as nn

    class UNet(nn.Module):
        @nn.compact
        def __call__(self, sample, times, context):
            model = FlaxUNet2DConditionModel(**SIZES, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), name="unet")
            return model(sample, times, context, return_dict=False)[0]

    return UNet()


def conv(inputs, outputs, rngs, stride=1):
    return nnx.Conv(inputs, outputs, (3, 3), stride, padding=1, rngs=rngs)


def norm(channels, rngs):
    return nnx.GroupNorm(channels, 32, epsilon=1e-5, rngs=rngs)


class Times(nnx.Module):
    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(LOW, 4 * LOW, rngs=rngs), nnx.Linear(4 * LOW, 4 * LOW, rngs=rngs)

    def __call__(self, times):
        frequencies = 10000.0 ** (-jnp.arange(LOW // 2) / (LOW // 2))
        angles = times[:, None] * frequencies
        return self.two(nnx.silu(self.one(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1))))


class Residual(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.norm1, self.conv1 = norm(inputs, rngs), conv(inputs, outputs, rngs)
        self.time = nnx.Linear(4 * LOW, outputs, rngs=rngs)
        self.norm2, self.conv2 = norm(outputs, rngs), conv(outputs, outputs, rngs)
        self.skip = nnx.Linear(inputs, outputs, rngs=rngs) if inputs != outputs else None

    def __call__(self, x, time):
        y = self.conv1(nnx.silu(self.norm1(x))) + self.time(nnx.silu(time))[:, None, None]
        y = self.conv2(nnx.silu(self.norm2(y)))
        return y + (x if self.skip is None else self.skip(x))


class Attention(nnx.Module):
    def __init__(self, channels, source, rngs):
        self.q = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
        self.kv = nnx.Linear(source, 2 * channels, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(channels, channels, rngs=rngs)

    def __call__(self, x, source):
        k, v = jnp.split(self.kv(source), 2, -1)
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1) for part in (self.q(x), k, v))
        return self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))


class Transformer(nnx.Module):
    def __init__(self, channels, rngs):
        self.norm = norm(channels, rngs)
        self.enter, self.leave = (nnx.Linear(channels, channels, rngs=rngs) for _ in range(2))
        self.norms = nnx.List([nnx.LayerNorm(channels, epsilon=1e-5, rngs=rngs) for _ in range(3)])
        self.itself, self.other = Attention(channels, channels, rngs), Attention(channels, CONTEXT, rngs)
        self.value, self.gate = (nnx.Linear(channels, 4 * channels, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(4 * channels, channels, rngs=rngs)

    def __call__(self, image, context):
        x = self.enter(self.norm(image)).reshape(len(image), -1, image.shape[-1])
        normed = self.norms[0](x)
        x = x + self.itself(normed, normed)
        x = x + self.other(self.norms[1](x), context)
        normed = self.norms[2](x)
        x = x + self.down(self.value(normed) * nnx.gelu(self.gate(normed)))
        return image + self.leave(x.reshape(image.shape))


class Down(nnx.Module):
    """Everything down to the middle, with the results for the skips."""

    def __init__(self, rngs):
        self.first = conv(4, LOW, rngs)
        self.time = Times(rngs)
        self.low, self.low_attention = Residual(LOW, LOW, rngs), Transformer(LOW, rngs)
        self.shrink = conv(LOW, LOW, rngs, 2)
        self.high = Residual(LOW, HIGH, rngs)
        self.middle = nnx.List([Residual(HIGH, HIGH, rngs) for _ in range(2)])
        self.middle_attention = Transformer(HIGH, rngs)

    def __call__(self, sample, times, context, added=0.0):
        time = self.time(times)
        kept = [self.first(sample.transpose(0, 2, 3, 1)) + added]
        kept.append(self.low_attention(self.low(kept[-1], time), context))
        kept.append(self.shrink(kept[-1]))
        kept.append(self.high(kept[-1], time))
        x = self.middle_attention(self.middle[0](kept[-1], time), context)
        return self.middle[1](x, time), kept, time


class Port(nnx.Module):
    def __init__(self, rngs):
        self.down = Down(rngs)
        self.high = nnx.List([Residual(2 * HIGH, HIGH, rngs), Residual(HIGH + LOW, HIGH, rngs)])
        self.grow = conv(HIGH, HIGH, rngs)
        self.low = nnx.List([Residual(HIGH + LOW, LOW, rngs), Residual(2 * LOW, LOW, rngs)])
        self.attentions = nnx.List([Transformer(LOW, rngs) for _ in range(2)])
        self.norm, self.last = norm(LOW, rngs), conv(LOW, 4, rngs)

    def __call__(self, sample, times, context):
        x, kept, time = self.down(sample, times, context)
        for block in self.high:
            x = block(jnp.concatenate([x, kept.pop()], -1), time)
        x = self.grow(x.repeat(2, 1).repeat(2, 2))
        for block, attention in zip(self.low, self.attentions, strict=True):
            x = attention(block(jnp.concatenate([x, kept.pop()], -1), time), context)
        return self.last(nnx.silu(self.norm(x))).transpose(0, 3, 1, 2)


def map_down(left, model, new):
    """The leaves down to the middle, under `new`."""
    residuals = {"down_blocks_0/resnets_0": "low", "down_blocks_1/resnets_0": "high"}
    residuals |= {"mid_block/resnets_0": "middle.0", "mid_block/resnets_1": "middle.1"}
    names = {
        f"{model}/conv_in": f"{new}.first",
        f"{model}/time_embedding/linear_1": f"{new}.time.one",
        f"{model}/time_embedding/linear_2": f"{new}.time.two",
        f"{model}/down_blocks_0/downsamplers_0/conv": f"{new}.shrink",
    }
    found = rename(left, names)
    for old, short in residuals.items():
        found |= map_residual(left, f"{model}/{old}", f"{new}.{short}")
    found |= map_transformer(left, f"{model}/down_blocks_0/attentions_0", f"{new}.low_attention")
    return found | map_transformer(left, f"{model}/mid_block/attentions_0", f"{new}.middle_attention")


def map_residual(left, old, new):
    names = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "time", "norm2": "norm2", "conv2": "conv2"}
    found = rename(left, {f"{old}/{one}": f"{new}.{other}" for one, other in names.items()})
    if f"{old}/conv_shortcut/bias" in left:
        found[f"{new}.skip.kernel"] = left[f"{old}/conv_shortcut/kernel"][0, 0]
        found[f"{new}.skip.bias"] = left[f"{old}/conv_shortcut/bias"]
    return found


def map_transformer(left, old, new):
    block = f"{old}/transformer_blocks_0"
    names = {f"{old}/norm": f"{new}.norm", f"{block}/ff/net_2": f"{new}.down"}
    names |= {f"{block}/norm{number + 1}": f"{new}.norms.{number}" for number in range(3)}
    for one, other in (("attn1", "itself"), ("attn2", "other")):
        names |= {f"{block}/{one}/to_q": f"{new}.{other}.q", f"{block}/{one}/to_out_0": f"{new}.{other}.out"}
    found = rename(left, names)
    for one, other in (("attn1", "itself"), ("attn2", "other")):
        found[f"{new}.{other}.kv.kernel"] = fuse(left, f"{block}/{one}", ("to_k", "to_v"), "kernel")
    for one, other in (("proj_in", "enter"), ("proj_out", "leave")):
        found[f"{new}.{other}.kernel"] = left[f"{old}/{one}/kernel"][0, 0]
        found[f"{new}.{other}.bias"] = left[f"{old}/{one}/bias"]
    for leaf in ("kernel", "bias"):
        value, gate = np.split(left[f"{block}/ff/net_0/proj/{leaf}"], 2, -1)
        found |= {f"{new}.value.{leaf}": value, f"{new}.gate.{leaf}": gate}
    return found


def by_hand(left):
    names = {
        "unet/up_blocks_0/upsamplers_0/conv": "grow",
        "unet/conv_norm_out": "norm",
        "unet/conv_out": "last",
    }
    found = rename(left, names) | map_down(left, "unet", "down")
    for number in range(2):
        found |= map_residual(left, f"unet/up_blocks_0/resnets_{number}", f"high.{number}")
        found |= map_residual(left, f"unet/up_blocks_1/resnets_{number}", f"low.{number}")
        found |= map_transformer(left, f"unet/up_blocks_1/attentions_{number}", f"attentions.{number}")
    return found


PAIR = Pair(published, Port, BATCH, "same", by_hand, needs=NEEDS)
