"""Batch norm: Haiku's arrays keep the axes of the input; its averages are debiased, and hold three arrays each.

A checkpoint of Haiku's evaluates the same in Flax with `average` as `mean` and `var`. Training on from there differs
by what the debiasing still has to say, until `decay**counter` is nothing.
"""

from equiv.case import Case, zero_debias
from equiv.layers import batch_norm


def haiku():
    import haiku as hk

    def forward(x, training: bool):
        return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=training)

    return hk.without_apply_rng(hk.transform_with_state(forward))


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, training: bool):
            return nn.BatchNorm(momentum=0.9)(x, use_running_average=not training)

    return Model()


def nnx(rngs):
    from flax import nnx

    return nnx.BatchNorm(6, momentum=0.9, rngs=rngs)


def loss(outputs, batch):
    return (outputs**3).mean()  # the mean square of what is normalised hangs on no input


CASE = Case(
    guide="API references: hk.BatchNorm, nn.BatchNorm, nnx.BatchNorm",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4,3,6]"},
    loss=loss,
    layers=(batch_norm("norm", haiku="batch_norm", linen="BatchNorm_0", nnx=""),),
    known_differences=zero_debias("norm", decay=0.9),
)
