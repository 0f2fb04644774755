"""A small model in Haiku and NNX, as source, with faults, and what is guilty in each reproduction."""

from dataclasses import dataclass
from functools import cache

from helpers import case_from

from equiv.comparison.explain.divergence import make_runs
from equiv.comparison.explain.reproduction.reproduce import Reproduction, reproduce_difference
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.compat import enable_x64

SOURCE = '''
"""A small model."""

import jax
import jax.numpy as jnp
from equiv.case import Case
from equiv.layers import conv, layer_norm, linear

WIDTH, LENGTH = 4, 5

def haiku():
    import haiku as hk

    def forward(x):
        y = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)
        q, k, v = (hk.Linear(WIDTH, name=name)(y) for name in "qkv")
        scores = jnp.einsum("bqd,bkd->bqk", q, k) * 0.5
        scores = jnp.where(jnp.tri(LENGTH, dtype=bool), scores, -1e9)
        x = x + jax.nn.softmax(scores, axis=-1) @ v
        y = jax.nn.gelu(hk.Linear(WIDTH, name="up")(x))
        x = x + hk.Conv1D(WIDTH, 3, padding="SAME", name="conv")(y)
        fresh, back = hk.Linear(WIDTH, name="fresh"), hk.Linear(WIDTH, with_bias=False, name="back")

        def step(h, row):
            h = jnp.tanh(fresh(row) + back(h)) + 0.25 * h
            return h, h

        _, x = hk.scan(step, jnp.zeros((x.shape[0], WIDTH)), x.swapaxes(0, 1))
        return hk.Linear(3, name="head")(x.swapaxes(0, 1)) * 1.5

    return hk.without_apply_rng(hk.transform(forward))

def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
            self.q, self.k, self.v, self.up, self.fresh = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(5))
            self.back = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
            self.conv = nnx.Conv(WIDTH, WIDTH, 3, padding="SAME", rngs=rngs)
            self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

        def step(self, h, row):
            new = self.fresh(row) + h @ self.back.kernel[...]
            h = jnp.tanh(new) + 0.25 * h
            return h, h

        def __call__(self, x):
            y = self.norm(x)
            q, k, v = self.q(y), self.k(y), self.v(y)
            scores = jnp.einsum("bqd,bkd->bqk", q, k)
            scores = scores * 0.5
            scores = jnp.where(jnp.tri(LENGTH, dtype=bool), scores, -1e9)
            y = jax.nn.softmax(scores, axis=-1) @ v
            x = x + y
            y = self.up(x)
            y = jax.nn.gelu(y)
            y = self.conv(y)
            x = x + y
            start = jnp.zeros((x.shape[0], WIDTH))
            _, x = jax.lax.scan(self.step, start, x.swapaxes(0, 1))
            x = self.head(x.swapaxes(0, 1))
            return x * 1.5

    return Model(rngs)

CASE = Case(
    guide="none",
    models={"haiku": haiku, "nnx": nnx},
    batch={"x": "float32[2,5,4]"},
    layers=(
        layer_norm("norm", haiku="norm", nnx="norm"),
        *(linear(name, haiku=name, nnx=name) for name in ("q", "k", "v", "up", "fresh", "head")),
        linear("back", haiku="back", nnx="back", bias=False),
        conv("conv", haiku="conv", nnx="conv"),
    ),
    steps=1,
    checks=("outputs",),
)
'''


@dataclass(frozen=True)
class SmallFault:
    """A fault in the NNX builder.

    Attributes:
        name: of it.
        old: a part of the source.
        new: what stands there instead.
        guilty: in the candidate's function of the reproduction, what is wrong and what is right.
    """

    name: str
    old: str
    new: str
    guilty: tuple[tuple[str, str], ...]


SMALL_FAULTS = (
    SmallFault("epsilon", "epsilon=1e-5", "epsilon=1e-3", (("+ 0.001", "+ 1e-05"),)),
    SmallFault("initial carry", "start = jnp.zeros(", "start = jnp.ones(",
               (("jnp.ones(", "jnp.zeros("), ("0.25", "0.0"))),
    SmallFault("softmax axis", "softmax(scores, axis=-1)", "softmax(scores, axis=1)", (("(1,)", "(2,)"),)),
    SmallFault("gelu form", "jax.nn.gelu(y)", "jax.nn.gelu(y, approximate=False)",
               (("return v5", "return jax.nn.gelu(x0, approximate=True)"),)),
    SmallFault("scale", "scores * 0.5", "scores * 0.25", (("0.25", "0.5"),)),
    SmallFault("padding", 'padding="SAME", rngs', 'padding=((2, 0),), rngs', (("((2, 0),)", "((1, 1),)"),)),
    SmallFault("mask value", "scores, -1e9)\n            y", "scores, -1.0)\n            y", (("-1.0", "-1e9"),)),
    SmallFault("transposed kernel", "self.back.kernel[...]", "self.back.kernel[...].T", ((".T", ""),)),
    SmallFault("wrong constant", "return x * 1.5", "return x * 1.25", (("1.25", "1.5"),)),
    SmallFault("missing residual", "x = x + y\n            y = self.up(x)", "x = y\n            y = self.up(x)",
               (("return x0", "return x0 + x1"),)),
)  # fmt: skip


def small_source(fault: SmallFault | None) -> str:
    """The source of the case with a fault, or of the right one."""
    if fault is None:
        return SOURCE
    model, _, rest = SOURCE.partition("def nnx(rngs)")
    assert fault.old in rest, f"{fault.name}: {fault.old!r} does not occur"
    return f"{model}def nnx(rngs){rest.replace(fault.old, fault.new)}"


def mend_script(text: str, fault: SmallFault) -> str:
    """The reproduction with its guilty operation replaced."""
    before, name, after = text.partition("def candidate(")
    body, end, rest = after.partition("\nROUNDING")
    for wrong, right in fault.guilty:
        assert wrong in body, f"{fault.name}: {wrong!r} is not in the candidate's function:\n{body}"
        body = body.replace(wrong, right)
    return f"{before}{name}{body}{end}{rest}"


@cache
def reproduce_fault(fault: SmallFault) -> Reproduction:
    """The reproduction of a fault in the small model."""
    state = trace_ports(check_structure(open_case(case_from(small_source(fault), "small"))))
    left, right = (state.traced[name] for name in ("haiku", "nnx"))
    program = min(left.programs.parts, key=lambda part: part.name.complexity)
    with enable_x64(True):
        runs = make_runs(program.name, program.outputs, left, right, make_probes(state.built_case, left.table), 1)
        return reproduce_difference(runs)
