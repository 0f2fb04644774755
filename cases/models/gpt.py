"""GPT decoder: 12 blocks of width 256, written out one by one, 11.5 million parameters; computed in bfloat16."""

from _decoder_rows import decoder_rows

from equiv.case import Case

SIZES = {"vocab": 4096, "length": 64, "width": 256, "depth": 12, "heads": 8}


def haiku():
    from _decoder_haiku import trained

    return trained(**SIZES)


def linen():
    from _decoder_linen import trained

    return trained(**SIZES)


def nnx(rngs):
    from _decoder_nnx import trained

    return trained(rngs, **SIZES)


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], batch["tokens"][:, 1:]).mean()


CASE = Case(
    guide="none: decoder of Radford et al., 2019 (GPT-2)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"tokens": "int32[2,16]:4096"},
    loss=loss,
    layers=decoder_rows(12),
)
