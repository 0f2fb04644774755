"""Ports with names of axes, and a case of two of them."""

from dataclasses import dataclass

from equiv.core.case import Case, Layer

KERNEL, HEAD = ("embed", "mlp"), ("mlp", "embed")
RULES = {"embed": None, "mlp": "model", "layers": None}


@dataclass(frozen=True)
class Names:
    """What a port says: names of the axes of two layers and of a stack of layers; None: nothing."""

    up: tuple | None = KERNEL
    down: tuple | None = HEAD
    stack: str | None = "layers"
    optimizer: tuple | None = None


def linen(names: Names = Names()):
    """A dense layer, two scanned ones, and a dense layer."""

    def build():
        import flax.linen as nn

        init = nn.initializers.lecun_normal()

        def named(axes):
            return init if axes is None else nn.with_logical_partitioning(init, axes)

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(nn.Dense(8, use_bias=False, name="dense", kernel_init=named(KERNEL))(x)), None

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                x = nn.Dense(8, use_bias=False, name="up", kernel_init=named(names.up))(x)
                options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": 2}
                scanned = nn.scan(Layer, metadata_params={nn.PARTITION_NAME: names.stack}, **options)
                x, _ = scanned(name="stack")(x, None)
                return nn.Dense(8, use_bias=False, name="down", kernel_init=named(names.down))(x)

        return Model()

    return build


def nnx_model(names: Names = Names()):
    """The same in NNX, trained by a step of its own where its optimizer has names."""

    def build(rngs):
        import jax
        from flax import nnx

        init = nnx.initializers.lecun_normal()

        def dense(axes, rngs):
            more = {} if names.optimizer is None else {"optimizer_sharding": names.optimizer}
            made = init if axes is None else nnx.with_partitioning(init, axes, **more)
            return nnx.Linear(8, 8, use_bias=False, kernel_init=made, rngs=rngs)

        metadata = {} if names.stack is None else {nnx.PARTITION_NAME: names.stack}

        class Model(nnx.Module):
            def __init__(self):
                self.up, self.down = dense(names.up, rngs), dense(names.down, rngs)
                made = nnx.vmap(lambda key: dense(KERNEL, nnx.Rngs(key)), transform_metadata=metadata)
                self.stack = made(jax.random.split(rngs.params(), 2))

            def __call__(self, x):
                x = self.up(x)

                @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry, transform_metadata=metadata)
                def scanned(x, layer):
                    return jax.numpy.tanh(layer(x))

                return self.down(scanned(x, self.stack))

        return Model()

    return build


def case(left, right, **options) -> Case:
    """A case of a Linen and an NNX port."""
    import optax

    layers = (
        Layer("up", "linear", {"linen": "up", "nnx": "up"}),
        Layer("stack", "linear", {"linen": "stack/dense", "nnx": "stack"}),
        Layer("down", "linear", {"linen": "down", "nnx": "down"}),
    )
    given = {"rules": RULES, "meshes": ({"model": 2},), **options}
    return Case(
        guide="none",
        models={"linen": left, "nnx": right},
        batch={"x": "float32[4,8]"},
        layers=layers,
        steps=1,
        optimizer=lambda: optax.sgd(0.1, momentum=0.9),
        **given,
    )
