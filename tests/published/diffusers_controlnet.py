"""ControlNet of diffusers against an NNX port that has no activation after the first layer of its condition."""

from flax import nnx
from published.diffusers_unet import BATCH, HIGH, LOW, NEEDS, SIZES, Down, conv, map_down
from published_names import rename
from published_pair import Pair


def published():
    from diffusers.models.controlnets.controlnet_flax import FlaxControlNetModel
    from flax import linen as nn

    class ControlNet(nn.Module):
        @nn.compact
        def __call__(self, sample, times, context, condition):
            model = FlaxControlNetModel(**SIZES, conditioning_embedding_out_channels=(8, 12), name="control")
            kept, middle = model(sample, times, context, condition, return_dict=False)
            return [*kept, middle]

    return ControlNet()


class Port(nnx.Module):
    def __init__(self, rngs):
        self.down = Down(rngs)
        self.condition = nnx.List(
            [conv(3, 8, rngs), conv(8, 8, rngs), conv(8, 12, rngs, 2), conv(12, LOW, rngs)],
        )
        sizes = (LOW, LOW, LOW, HIGH, HIGH)
        self.outputs = nnx.List([nnx.Linear(size, size, rngs=rngs) for size in sizes])

    def __call__(self, sample, times, context, condition):
        x = self.condition[0](condition.transpose(0, 2, 3, 1))
        for layer in self.condition[1:-1]:
            x = nnx.silu(layer(x))
        middle, kept, _ = self.down(sample, times, context, self.condition[-1](x))
        return [layer(x) for layer, x in zip(self.outputs, [*kept, middle], strict=True)]


def by_hand(left):
    embedding = "control/controlnet_cond_embedding"
    names = {
        f"{embedding}/conv_in": "condition.0",
        f"{embedding}/blocks_0": "condition.1",
        f"{embedding}/blocks_1": "condition.2",
        f"{embedding}/conv_out": "condition.3",
    }
    found = rename(left, names) | map_down(left, "control", "down")
    layers = [*(f"controlnet_down_blocks_{number}" for number in range(4)), "controlnet_mid_block"]
    for number, layer in enumerate(layers):
        found[f"outputs.{number}.kernel"] = left[f"control/{layer}/kernel"][0, 0]
        found[f"outputs.{number}.bias"] = left[f"control/{layer}/bias"]
    return found


CONDITIONED = BATCH | {"condition": "float32[2,3,16,16]"}
BUG = "no activation after the first layer of the condition"
PAIR = Pair(published, Port, CONDITIONED, "different", by_hand, bug=BUG, needs=NEEDS)
