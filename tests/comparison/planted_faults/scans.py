"""Scans over another axis, in another order, or from another start."""

from comparison.planted_fault import CALL, fault

CONCAT = "x = jnp.concatenate([carry, x], axis=-1)"

FAULTS = (
    fault(
        "scan_over_the_batch_axis",
        "rnn_scan/linen",
        (
            "in_axes=1, out_axes=1",
            "in_axes=0, out_axes=0",
            "rnn.initial_state(x.shape[0])",
            "rnn.initial_state(x.shape[1])",
        ),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "scan_reversed",
        "rnn_scan/nnx",
        ("(nnx.Carry, 1))", "(nnx.Carry, 1), reverse=True)"),
        "outputs",
        CALL,
        "structure",
    ),
    fault(
        "carry_and_input_exchanged",
        "rnn_scan/linen",
        (CONCAT, CONCAT.replace("carry, x", "x, carry")),
        "outputs",
        CALL,
        "structure",
    ),
    fault("initial_carry_of_ones", "rnn_scan/nnx", ("jnp.zeros((batch_size", "jnp.ones((batch_size"), "outputs", CALL),
    fault(
        "carry_before_the_activation",
        "rnn_scan/nnx",
        ("x = jax.nn.relu(x)\n            return x, x", "return x, jax.nn.relu(x)"),
        "outputs",
        CALL,
    ),
)
