"""The layer catalogue: every layer of Haiku and its equal in Flax, each shown by a case under `cases/layers`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerPair:
    """One layer in three libraries, with the arguments that make all three equal.

    Attributes:
        name: of the layer.
        case: the case under `cases/layers` that shows it.
        haiku: the code in Haiku.
        linen: the code in Linen; empty if it has no equal layer.
        nnx: the code in NNX; empty if it has no equal layer.
        layout: how the arrays of the libraries differ.
        reason: why a library has no equal layer.
        works: what to write there instead.
    """

    name: str
    case: str
    haiku: str
    linen: str
    nnx: str
    layout: str = "same arrays"
    reason: str = ""
    works: str = ""


EPSILON = "epsilon=1e-5, use_fast_variance=False"

LAYER_PAIRS: tuple[LayerPair, ...] = (
    LayerPair("linear", "linear", "hk.Linear(n)", "nn.Dense(n)", "nnx.Linear(m, n)"),
    LayerPair("convolution, 1 axis", "conv_1d", "hk.Conv1D(n, k)", "nn.Conv(n, (k,))", "nnx.Conv(m, n, (k,))"),
    LayerPair(
        "convolution, 2 axes",
        "conv_2d",
        "hk.Conv2D(n, k, rate=r, feature_group_count=g)",
        "nn.Conv(n, (k, k), kernel_dilation=r, feature_group_count=g)",
        "nnx.Conv(m, n, (k, k), kernel_dilation=r, feature_group_count=g)",
    ),
    LayerPair("convolution, 3 axes", "conv_3d", "hk.Conv3D(n, k)", "nn.Conv(n, (k,) * 3)", "nnx.Conv(m, n, (k,) * 3)"),
    LayerPair(
        "convolution, channels first",
        "conv_channels_first",
        'hk.Conv2D(n, k, data_format="NCHW")',
        "nn.Conv(n, (k, k)) on transposed activations",
        "nnx.Conv(m, n, (k, k)) on transposed activations",
        layout="haiku's bias is (out, 1, 1)",
    ),
    LayerPair(
        "depthwise convolution",
        "conv_depthwise",
        "hk.DepthwiseConv2D(times, k)",
        "nn.Conv(times * m, (k, k), feature_group_count=m)",
        "nnx.Conv(m, times * m, (k, k), feature_group_count=m)",
    ),
    LayerPair(
        "separable depthwise convolution",
        "conv_separable",
        "hk.SeparableDepthwiseConv2D(times, k)",
        "nn.Conv(times * m, (k, 1), feature_group_count=m, use_bias=False), then one of (1, k)",
        "nnx.Conv(m, times * m, (k, 1), feature_group_count=m, use_bias=False), then one of (1, k)",
        layout="same arrays; two depthwise convolutions, no window of one",
    ),
    LayerPair(
        "transposed convolution",
        "conv_transpose",
        "hk.Conv2DTranspose(n, k, stride=s)",
        "nn.ConvTranspose(n, (k, k), strides=(s, s))",
        "nnx.ConvTranspose(m, n, (k, k), strides=(s, s))",
        layout="haiku's kernel is (.., out, in), flax's (.., in, out); not flipped",
    ),
    LayerPair(
        "transposed convolution, transpose_kernel",
        "conv_transpose_flipped",
        "hk.Conv2DTranspose(n, k, stride=s)",
        "nn.ConvTranspose(n, (k, k), strides=(s, s), transpose_kernel=True)",
        "nnx.ConvTranspose(m, n, (k, k), strides=(s, s), transpose_kernel=True)",
        layout="(.., out, in) in all; in flax every spatial axis runs backwards",
    ),
    LayerPair(
        "embedding",
        "embedding",
        "hk.Embed(words, n)",
        "nn.Embed(words, n)",
        "nnx.Embed(words, n)",
        layout="same array; beyond the last word haiku gives the last, flax NaN",
    ),
    LayerPair(
        "layer norm",
        "norm_layer",
        "hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)",
        f"nn.LayerNorm({EPSILON})",
        f"nnx.LayerNorm(n, {EPSILON})",
    ),
    LayerPair("RMS norm", "norm_rms", "hk.RMSNorm(-1)", "nn.RMSNorm(epsilon=1e-5)", "nnx.RMSNorm(n, epsilon=1e-5)"),
    LayerPair(
        "group norm",
        "norm_group",
        "hk.GroupNorm(groups=g)",
        f"nn.GroupNorm(num_groups=g, {EPSILON})",
        f"nnx.GroupNorm(n, num_groups=g, {EPSILON})",
    ),
    LayerPair(
        "instance norm",
        "norm_instance",
        "hk.InstanceNorm(create_scale=True, create_offset=True)",
        f"nn.InstanceNorm({EPSILON})",
        f"nnx.InstanceNorm(n, {EPSILON})",
    ),
    LayerPair(
        "batch norm",
        "norm_batch",
        "hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=d)",
        "nn.BatchNorm(momentum=d)",
        "nnx.BatchNorm(n, momentum=d)",
        layout="haiku's are (1, .., n); flax's mean and var are haiku's average; hidden and counter are haiku's own",
    ),
    LayerPair(
        "spectral norm",
        "norm_spectral",
        "hk.SpectralNorm()(w)",
        "nn.SpectralNorm(nn.Dense(n), epsilon=1e-4)",
        "",
        layout="same arrays",
        reason="nnx.SpectralNorm writes the normalised kernel over its parameter at every call: other training",
        works="a module that normalises a copy, as in the case",
    ),
    LayerPair(
        "attention",
        "attention",
        "hk.MultiHeadAttention(h, size, model_size=n, w_init=...)",
        "nn.MultiHeadDotProductAttention(h, qkv_features=h * size, out_features=n)",
        "nnx.MultiHeadAttention(h, m, qkv_features=h * size, out_features=n, decode=False)",
        layout="flax has the heads as an axis: (m, h, size), out (h, size, n)",
    ),
    LayerPair(
        "attention, values of another size",
        "attention_value_size",
        "hk.MultiHeadAttention(h, size, value_size=v, model_size=n, w_init=...)",
        "",
        "",
        reason="flax's attention has one qkv_features for queries, keys and values",
        works="four dense layers and einsum, as in the case",
    ),
    LayerPair(
        "LSTM",
        "rnn_lstm",
        "hk.LSTM(n)",
        "nn.LSTMCell(n)",
        "nnx.LSTMCell(m, n)",
        layout="haiku has one kernel (m + n, 4n), gates i, g, f, o, and adds 1 to f; flax a kernel for each gate",
    ),
    LayerPair(
        "LSTM, packed",
        "rnn_lstm_packed",
        "hk.LSTM(n)",
        "nn.OptimizedLSTMCell(n)",
        "nnx.OptimizedLSTMCell(m, n)",
        layout="nnx has kernels (m, 4n) and (n, 4n), gates i, f, g, o; haiku and linen as for LSTM",
    ),
    LayerPair(
        "convolutional LSTM",
        "rnn_conv_lstm",
        "hk.Conv1DLSTM(shape, n, k)",
        "nn.ConvLSTMCell(n, (k,))",
        "",
        layout="same arrays: all gates i, g, f, o in one, 1 added to f in the code of both",
        reason="flax.nnx has no convolutional LSTM",
        works="a cell of two nnx.Conv, as in the case",
    ),
    LayerPair(
        "vanilla RNN",
        "rnn_vanilla",
        "hk.VanillaRNN(n, double_bias=False)",
        "nn.SimpleCell(n, activation_fn=nn.relu)",
        "nnx.SimpleCell(m, n, activation_fn=nnx.relu, dtype=None)",
    ),
    LayerPair(
        "vanilla RNN, two biases",
        "rnn_vanilla_two_biases",
        "hk.VanillaRNN(n)",
        "",
        "",
        reason="flax's simple cell has one bias: the sum of two gives the same outputs, and half the step in training",
        works="a cell of two dense layers, as in the case; or double_bias=False in haiku",
    ),
    LayerPair(
        "GRU",
        "rnn_gru",
        "hk.GRU(n)",
        "",
        "",
        reason="haiku resets the state before its matrix product, flax's GRUCell after it: another function",
        works="a cell with haiku's three arrays, as in the case",
    ),
    LayerPair(
        "max pooling",
        "pool_max",
        "hk.max_pool(x, (1, k, k, 1), (1, s, s, 1), padding)",
        "nn.max_pool(x, (k, k), (s, s), padding)",
        "nnx.max_pool(x, (k, k), (s, s), padding)",
        layout="no arrays",
    ),
    LayerPair(
        "average pooling",
        "pool_average",
        "hk.avg_pool(x, (1, k, k, 1), (1, s, s, 1), padding)",
        "nn.avg_pool(x, (k, k), (s, s), padding, count_include_pad=False)",
        "nnx.avg_pool(x, (k, k), (s, s), padding, count_include_pad=False)",
        layout="no arrays",
    ),
    LayerPair(
        "dropout",
        "dropout_layer",
        "hk.dropout(hk.next_rng_key(), rate, x)",
        "nn.Dropout(rate)",
        "nnx.Dropout(rate)",
        layout="no arrays; nnx keeps a key and a count",
    ),
    LayerPair(
        "stack of layers",
        "stacked",
        "hk.layer_stack(n)(block)",
        'nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=n)',
        "nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)",
        layout="same arrays, with the layers as first axis",
    ),
    LayerPair(
        "stack, written out elsewhere",
        "stacked_unrolled",
        "hk.Linear(n), written n times",
        'nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=n)',
        "nnx.List([...])",
        layout="one item of the first axis for each layer that is written out",
    ),
    LayerPair(
        "parameter and state",
        "variables",
        "hk.get_parameter(name), hk.get_state(name)",
        "self.param(name), self.variable(collection, name)",
        "nnx.Param(x), nnx.Variable(x)",
        layout="as the model has them; a row's layouts say what differs",
    ),
)
"""The layers, in the order of the report."""


def pair_of(case: str) -> LayerPair | None:
    """The layer pair that a case under `cases/layers` shows, by the name of the case."""
    return next((pair for pair in LAYER_PAIRS if pair.case == case), None)
