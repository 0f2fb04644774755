"""The rows of a layer table, one function per layer kind. Shapes are canonical, the same for every library."""

from collections.abc import Mapping

from equiv.core.case import Layer
from equiv.core.layer_kinds import ONLY
from equiv.core.layouts import Chain, Flip, Layout, SwapAxes
from equiv.core.leaves import HeldValue

Layouts = Mapping[str, Mapping[str, Layout]]
"""Port, or library, to leaf to its layout there."""


def linear(path: str, **scopes: str) -> Layer:
    """`hk.Linear`, `nn.Dense`, `nnx.Linear`: `kernel` of shape (in, out) and `bias` of shape (out,)."""
    return Layer(path, "linear", scopes)


def conv(path: str, channels_first: int | Mapping[str, int] = 0, **scopes: str) -> Layer:
    """`hk.Conv1D` to `hk.Conv3D`, `hk.DepthwiseConv2D`, `nn.Conv`, `nnx.Conv`.

    `kernel` is (*window, in / groups, out), `bias` (out,).

    Args:
        path: canonical path.
        channels_first: number of spatial axes where Haiku's has `data_format="NCHW"` or the like; else 0. A mapping
            gives it port by port.
        scopes: port to the layer's scope there.
    """
    return Layer(path, "conv", scopes, channels_first=channels_first)


def conv_transpose(path: str, transpose_kernel: tuple[str, ...] = (), spatial: int = 2, **scopes: str) -> Layer:
    """`hk.Conv1DTranspose` to `hk.Conv3DTranspose`, `nn.ConvTranspose`, `nnx.ConvTranspose`.

    `kernel` is (*window, in, out), `bias` (out,).

    Args:
        path: canonical path.
        transpose_kernel: the ports, or libraries, whose layer has `transpose_kernel=True`: it stores
            (*window, out, in), flipped.
        spatial: number of spatial axes: these are the axes that are flipped.
        scopes: port to the layer's scope there.
    """
    flipped = Chain((Flip(tuple(range(-2 - spatial, -2))), SwapAxes()))
    return Layer(path, "conv_transpose", scopes, layouts={name: {"kernel": flipped} for name in transpose_kernel})


def embed(path: str, **scopes: str) -> Layer:
    """`hk.Embed`, `nn.Embed`, `nnx.Embed`: `embedding` of shape (num_embeddings, features)."""
    return Layer(path, "embed", scopes)


def layer_norm(path: str, **scopes: str) -> Layer:
    """`hk.LayerNorm`, `nn.LayerNorm`, `nnx.LayerNorm`: `scale` and `bias`, each (features,)."""
    return Layer(path, "layer_norm", scopes)


def rms_norm(path: str, **scopes: str) -> Layer:
    """`hk.RMSNorm`, `nn.RMSNorm`, `nnx.RMSNorm`: `scale` of shape (features,)."""
    return Layer(path, "rms_norm", scopes)


def group_norm(path: str, **scopes: str) -> Layer:
    """`hk.GroupNorm`, `nn.GroupNorm`, `nnx.GroupNorm`: `scale` and `bias`, each (features,)."""
    return Layer(path, "group_norm", scopes)


def instance_norm(path: str, **scopes: str) -> Layer:
    """`hk.InstanceNorm`, `nn.InstanceNorm`, `nnx.InstanceNorm`: `scale` and `bias`, each (features,)."""
    return Layer(path, "instance_norm", scopes)


def batch_norm(path: str, channels_first: int | Mapping[str, int] = 0, **scopes: str) -> Layer:
    """`hk.BatchNorm`, `nn.BatchNorm`, `nnx.BatchNorm`: `scale`, `bias`, running `mean` and `var`, each (features,).

    Args:
        path: canonical path.
        channels_first: number of spatial axes where Haiku's has `data_format="NCHW"` or the like; else 0. A mapping
            gives it port by port.
        scopes: port to the layer's scope there.
    """
    return Layer(path, "batch_norm", scopes, channels_first=channels_first)


def spectral_norm(path: str, **scopes: str) -> Layer:
    """`hk.SpectralNorm`, `nn.SpectralNorm`: running singular vector `u` (1, out) and value `sigma` ().

    The wrapped layer has its own row. Linen's scope ends with the kernel's path: `SpectralNorm_0/Dense_0/kernel`.
    """
    return Layer(path, "spectral_norm", scopes)


def attention(path: str, **scopes: str) -> Layer:
    """`hk.MultiHeadAttention`, `nn.MultiHeadDotProductAttention`, `nnx.MultiHeadAttention`.

    `query`, `key`, `value`: `kernel` (in, heads x size), `bias` (heads x size,); `out`: (heads x size, out), (out,).
    """
    return Layer(path, "attention", scopes)


def lstm(path: str, **scopes: str) -> Layer:
    """`hk.LSTM`, `nn.LSTMCell`, `nn.OptimizedLSTMCell`, `nnx.LSTMCell`, `nnx.OptimizedLSTMCell`.

    Gate by gate, named as in Flax: `ii`, `if`, `ig`, `io`: `kernel` (in, size); `hi` to `ho`: `kernel` (size, size),
    `bias` (size,), the forget gate's with the 1 that Haiku adds in its code.
    """
    return Layer(path, "lstm", scopes)


def vanilla_rnn(path: str, **scopes: str) -> Layer:
    """`hk.VanillaRNN(double_bias=False)`, `nn.SimpleCell`, `nnx.SimpleCell`.

    `i`: `kernel` (in, size) and `bias` (size,); `h`: `kernel` (size, size).
    """
    return Layer(path, "vanilla_rnn", scopes)


def conv_lstm(path: str, **scopes: str) -> Layer:
    """`hk.Conv2DLSTM`, `nn.ConvLSTMCell`: `ih` and `hh`, each `kernel` (*window, in, 4 x out) and `bias` (4 x out,)."""
    return Layer(path, "conv_lstm", scopes)


def module(path: str, *leaves: str, layouts: Layouts | None = None, **scopes: str) -> Layer:
    """A module of the case's own: parameters `leaves`, under the same names in every library."""
    return Layer(path, "module", scopes, leaves, layouts or {})


def parameter(path: str, layouts: Layouts | None = None, **paths: str) -> Layer:
    """One parameter: `paths` are its full native paths; the leaf of its `layouts` is `""`."""
    return Layer(path, "parameter", paths, layouts=layouts or {})


def state(path: str, layouts: Layouts | None = None, **paths: str) -> Layer:
    """One variable that a call changes: `paths` are its full native paths (Linen: with the collection first)."""
    return Layer(path, "state", paths, layouts=layouts or {})


def only(port: str, leaf: str, value: HeldValue | None = None) -> Layer:
    """A leaf that one port has and another lacks, such as the bias of a layer before a batch norm.

    With a value the ports are compared where the leaf has it, and what is `same` holds under this condition: the leaf
    has no gradient, and is put back after every train step. A row of another kind that holds this leaf alone needs no
    scope of the port that lacks it.

    Args:
        port: the port, or library, that has it.
        leaf: its canonical name, `"d/bias"`.
        value: a number, or `"initial"`: what the library initialises it to. None: the ports are different by it, and
            a run says at which value they are the same.
    """
    return Layer(leaf, ONLY, {port: ""}, value=value)
