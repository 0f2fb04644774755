"""LoRA on a decoder: low-rank updates beside frozen dense layers; the optimizer has slots for them only."""

from _decoder_rows import decoder_rows

from equiv.case import Case

SIZES = {"vocab": 50, "length": 8, "width": 32, "depth": 12, "heads": 4, "rank": 4}


def haiku():
    from _decoder_haiku import finetuned

    return finetuned(**SIZES)


def linen():
    from _decoder_linen import finetuned

    return finetuned(**SIZES)


def nnx(rngs):
    from _decoder_nnx import finetuned

    return finetuned(rngs, **SIZES)


def loss(outputs, batch):
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(outputs[:, :-1], batch["tokens"][:, 1:]).mean()


CASE = Case(
    guide="none: LoRA of Hu et al., 2021 (arXiv:2106.09685)",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"tokens": "int32[2,8]:50"},
    loss=loss,
    layers=decoder_rows(12, lora=True),
)
