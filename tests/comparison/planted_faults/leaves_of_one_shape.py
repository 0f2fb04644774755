"""Leaves of the same shape that are exchanged or turned."""

from comparison.planted_fault import CALL, EVAL, fault

FAULTS = (
    fault(
        "query_and_key_exchanged_in_the_table",
        "attention/linen",
        ('linen="query"', 'linen="other"', 'linen="key"', 'linen="query"', 'linen="other"', 'linen="key"'),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "value_and_out_exchanged_in_the_table",
        "attention/linen",
        ('linen="value"', 'linen="other"', 'linen="out"', 'linen="value"', 'linen="other"', 'linen="out"'),
        "gradients",
        "gradient __call__: gradient out/kernel",
        "structure",
    ),
    fault(
        "scale_and_offset_exchanged_in_the_table",
        "attention/linen",
        ('linen="scale"', 'linen="other"', 'linen="offset"', 'linen="scale"', 'linen="other"', 'linen="offset"'),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "square_kernel_transposed_in_a_stack",
        "scan_over_layers/nnx",
        ("x = self.linear(x)", "x = x @ self.linear.kernel[...].T + self.linear.bias[...]"),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "layers_in_reverse_order",
        "scan_over_layers/nnx",
        ("out_axes=nnx.Carry)", "out_axes=nnx.Carry, reverse=True)"),
        "outputs",
        EVAL,
        "structure randomness",
    ),
    fault(
        "gates_in_another_order",
        "gates/nnx",
        ("i, g, forget, o =", "i, forget, g, o ="),
        "outputs",
        CALL,
        "structure",
    ),
)
