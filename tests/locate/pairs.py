"""Two faults at once: the names of both, and whether the pair is held out."""


def _both(model: str, first: str, second: str, held_out: bool = False) -> tuple[tuple[str, str], bool]:
    return (f"{model} {first}", f"{model} {second}"), held_out


PAIRS = (
    _both("decoder.nnx", "eps", "relu"),
    _both("decoder.nnx", "scale", "tanh"),
    _both("decoder.nnx", "softmax axis", "factor after", True),
    _both("decoder.nnx", "positions", "gelu exact", True),
    _both("decoder.nnx", "no residual", "mask value", True),
    _both("recurrent.nnx", "leaky", "forget bias"),
    _both("recurrent.nnx", "eps", "sum for mean"),
    _both("recurrent.nnx", "relu in the loop", "softmax for log", True),
    _both("recurrent.nnx", "carry", "leaky", True),
    _both("residual.haiku", "epsilon", "relu too many"),
    _both("residual.linen", "padding", "rate"),
    _both("residual.linen", "momentum", "adam epsilon"),
    _both("residual.linen", "dilation", "clipping", True),
    _both("images.haiku", "relu", "sign of a rule"),
    _both("images.nnx", "relu", "detached", True),
    _both("words.linen", "forget bias", "b2", True),
)
