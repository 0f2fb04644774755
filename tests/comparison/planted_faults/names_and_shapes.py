"""Wrong names, shapes, dtypes and layers, and paths that a guide prints otherwise."""

from comparison.planted_fault import fault

FAULTS = (
    fault(
        "bias_missing",
        "auto_encoder/linen",
        ("nn.Dense(self.embed_dim)", "nn.Dense(self.embed_dim, use_bias=False)"),
        "structure",
        "leaf encoder/bias",
    ),
    fault(
        "parameter_is_bfloat16",
        "dropout/nnx",
        ("nnx.Linear(dmid, dout, rngs=rngs)", "nnx.Linear(dmid, dout, param_dtype='bfloat16', rngs=rngs)"),
        "structure",
        "leaf linear/kernel",
    ),
    fault(
        "one_layer_too_few",
        "scan_over_layers/nnx",
        ("MLP(64, num_layers, rngs=rngs)", "MLP(64, num_layers=4, rngs=rngs)"),
        "structure",
        "leaf blocks.linear/kernel",
    ),
    fault(
        "parameters_shared_by_all_layers",
        "scan_over_layers/linen",
        ('variable_axes={"params": 0}', 'variable_broadcast="params"', '{"params": True, ', '{"params": False, '),
        "structure",
        "leaf blocks.linear/kernel",
    ),
    fault(
        "encoder_and_decoder_exchanged_in_the_table",
        "auto_encoder/nnx",
        ('nnx="encoder"', 'nnx="other"', 'nnx="decoder"', 'nnx="encoder"', 'nnx="other"', 'nnx="decoder"'),
        "structure",
        "leaf encoder/kernel",
    ),
    fault(
        "printed_path_is_wrong",
        "dropout/linen",
        ('"Dense_0/kernel": (256, 10)', '"Dense_1/kernel": (256, 10)'),
        "structure",
        "linen prints Dense_1/kernel",
        "randomness outputs gradients train",
    ),
    fault(
        "printed_shape_is_wrong",
        "auto_encoder/nnx",
        ('"encoder.kernel": (784, 256)', '"encoder.kernel": (256, 784)'),
        "structure",
        "nnx prints encoder.kernel",
        "outputs gradients train",
    ),
)
