"""The layer table of the decoder: `equiv map` infers the same rows, one by one."""

from collections.abc import Iterator

from equiv.case import Layer
from equiv.layers import attention, embed, layer_norm, linear, module

ENDS = {
    "wte": (embed, "wte", "token_embedding"),
    "wpe": (embed, "wpe", "position_embedding"),
    "ln_f": (layer_norm, "ln_f", "final_norm"),
    "head": (linear, "lm_head", "head"),
}
"""Haiku's name of each layer outside of the blocks to its kind, Linen's name and NNX's."""

BLOCK = {
    "ln_1": (layer_norm, "ln_1", "norm1"),
    "attention": (attention, "attn", "attention"),
    "ln_2": (layer_norm, "ln_2", "norm2"),
}
"""The same of each layer of a block but the dense ones, below the block."""

DENSE = {"fc": ("mlp/c_fc", "mlp.up"), "proj": ("mlp/c_proj", "mlp.down")}
"""Haiku's name of each dense layer of a block to Linen's and NNX's."""


def decoder_rows(depth: int, scanned: tuple[str, ...] = (), lora: bool = False) -> tuple[Layer, ...]:
    """One row for each layer.

    Args:
        depth: number of blocks.
        scanned: ports in which the blocks are one stack.
        lora: whether dense layers have a low-rank update.
    """
    ends = [row(name, haiku=f"gpt/{name}", linen=linen, nnx=nnx) for name, (row, linen, nnx) in ENDS.items()]
    return (*ends, *(one for index in range(depth) for one in _block_rows(index, scanned, lora)))


def _block_rows(index: int, scanned: tuple[str, ...], lora: bool) -> Iterator[Layer]:
    def places(haiku: str, linen: str, nnx: str) -> dict[str, str]:
        stacked = {
            "haiku": f"gpt/blocks/block/{haiku}[{index}]",
            "linen": f"h/{linen}[{index}]",
            "nnx": f"blocks.{nnx}[{index}]",
        }
        alone = {
            "haiku": f"gpt/block_{index}/{haiku}",
            "linen": f"h_{index}/{linen}",
            "nnx": f"blocks.{index}.{nnx}",
        }
        return {port: (stacked if port in scanned else alone)[port] for port in alone}

    for name, (row, linen, nnx) in BLOCK.items():
        yield row(f"block_{index}.{name}", **places(name, linen, nnx))
    for name, (linen, nnx) in DENSE.items():
        if lora:
            base = places(f"{name}/base", f"{linen}/base", f"{nnx}.base_module")
            yield linear(f"block_{index}.{name}.base", **base)
            yield module(f"block_{index}.{name}", "lora_a", "lora_b", **places(name, linen, nnx))
        else:
            yield linear(f"block_{index}.{name}", **places(name, linen, nnx))
