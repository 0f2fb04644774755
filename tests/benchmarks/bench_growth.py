"""How proving grows: forward and gradients of an unrolled transformer in Linen and NNX, with 6 to 48 layers.

Run it with `nox -s bench`. Printed per size: equations, seconds to trace and to prove, and the exponent with which the
time grows from one size to the next (1: as the number of equations).
"""

import math
import sys
import time

from equiv.core.case import Case
from equiv.core.layers import linear, module
from equiv.core.output_name import ProgramName
from equiv.programs.built_case import build_case
from equiv.programs.jaxpr import count_equations
from equiv.programs.prover.value_numbering import number_program
from equiv.programs.trace import Tracer, trace_forward, trace_gradient

WIDTH, HEADS = 64, 4


def linen(layers: int):
    """A pre-norm transformer with `layers` blocks."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.LayerNorm(name="norm1")(x)
            q, k, v = (nn.Dense(WIDTH, name=name)(y) for name in ("query", "key", "value"))
            q, k, v = (part.reshape(*part.shape[:-1], HEADS, WIDTH // HEADS) for part in (q, k, v))
            weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 4.0)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
            x = x + nn.Dense(WIDTH, name="out")(y)
            y = jax.nn.gelu(nn.Dense(4 * WIDTH, name="up")(nn.LayerNorm(name="norm2")(x)))
            return x + nn.Dense(WIDTH, name="down")(y)

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x):
            for layer in range(layers):
                x = Block(name=f"block{layer}")(x)
            return x

    return Transformer()


def nnx(layers: int, rngs):
    """The same in NNX."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self):
            self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
            self.query, self.key, self.value, self.out = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
            self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x):
            y = self.norm1(x)
            q, k, v = self.query(y), self.key(y), self.value(y)
            q, k, v = (part.reshape(*part.shape[:-1], HEADS, WIDTH // HEADS) for part in (q, k, v))
            weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 4.0)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
            x = x + self.out(y)
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    class Transformer(nnx.Module):
        def __init__(self):
            for layer in range(layers):
                setattr(self, f"block{layer}", Block())

        def __call__(self, x):
            for layer in range(layers):
                x = getattr(self, f"block{layer}")(x)
            return x

    return Transformer()


def transformer(layers: int) -> Case:
    """The case with so many blocks."""
    rows = []
    for layer in range(layers):
        names = [f"block{layer}.{name}" for name in ("query", "key", "value", "out", "up", "down")]
        rows += [linear(name, linen=name.replace(".", "/"), nnx=name) for name in names]
        norms = [f"block{layer}.{name}" for name in ("norm1", "norm2")]
        rows += [module(name, "scale", "bias", linen=name.replace(".", "/"), nnx=name) for name in norms]
    return Case(
        guide="bench",
        models={"linen": lambda: linen(layers), "nnx": lambda rngs: nnx(layers, rngs)},
        batch={"x": "float32[2,8,64]"},
        layers=tuple(rows),
    )


def measure(layers: int) -> tuple[int, float, float]:
    """Equations of both ports, seconds to trace, seconds to prove; every output must be proved."""
    workshop = build_case(transformer(layers))
    started = time.perf_counter()
    ports = []
    for built in workshop.built.values():
        tracer = Tracer(built.port, built.table, workshop.request, False, False)
        ports.append(
            (
                trace_forward(tracer, ProgramName("call", "__call__")),
                trace_gradient(tracer, ProgramName("gradient", "__call__")),
            )
        )
    traced = time.perf_counter()
    names = [
        [{key: value.name for key, value in number_program(part).items()} for part in programs] for programs in ports
    ]
    done = time.perf_counter()
    assert names[0] == names[1], "an output is not proved"
    return sum(count_equations(part.jaxpr) for programs in ports for part in programs), traced - started, done - traced


def main() -> None:
    """Measure and print."""
    sizes = [int(size) for size in sys.argv[1:]] or [6, 12, 24, 48]
    measure(2)
    before = None
    for layers in sizes:
        count, trace, prove = measure(layers)
        exponent = ""
        if before is not None:
            exponent = f", exponent {math.log(prove / before[1]) / math.log(count / before[0]):.2f}"
        per = 1e6 * prove / count
        print(
            f"{layers} layers: {count} equations, trace {trace:.2f} s, prove {prove:.2f} s, {per:.0f} us each{exponent}"
        )
        before = count, prove


if __name__ == "__main__":
    main()
