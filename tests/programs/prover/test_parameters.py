"""Every parameter of a primitive is part of the name that the prover gives to its result, or known to mean nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.prover.numbered import names

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.terms import IGNORED_PARAMS, new_term
from equiv.programs.prover.value_numbering import Numbering


class Watched(Mapping[str, Any]):
    """Parameters of an equation that remember which of them were read."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params, self.read = params, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self.params[key]

    def __or__(self, others: Mapping[str, Any]) -> "Watched":
        changed = Watched({**self.params, **others})
        changed.read = self.read  # what is read of a copy is read
        return changed

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


X = np.zeros((4, 6), "float32")

GATHER = lax.GatherDimensionNumbers((1,), (0,), (0,))
SCATTER = lax.ScatterDimensionNumbers((1,), (0,), (0,))


def rows(x):
    """Indices that are not known: in range they would decide more than the mode."""
    return lax.convert_element_type(x[:, :1], "int32")


USES = {
    "argmax": lambda x: lax.argmax(x, 1, "int32"),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (4, 3, 6), (0, 2)),
    "clamp": lambda x: lax.clamp(0.0, x, 1.0),
    "concatenate": lambda x: lax.concatenate([x, x], 1),
    "conv_general_dilated": lambda x: lax.conv(x[None, :1, None], x[:1, :1, None, None], (1, 2), "SAME"),
    "convert_element_type": lambda x: lax.convert_element_type(x, "int32"),
    "cumsum": lambda x: lax.cumsum(x, 1, reverse=True),
    "dot_general": lambda x: lax.dot_general(x, x, (((1,), (1,)), ((), ())), precision="highest"),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (jnp.argmax(x), 1), (1, 2)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, x[:1], (jnp.argmax(x), 1)),
    "gather": lambda x: lax.gather(x, rows(x), GATHER, (1, 6), mode="fill", fill_value=3.0),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "iota": lambda x: lax.broadcasted_iota("int32", (3, 4), 1),
    "pad": lambda x: lax.pad(x, 0.0, ((1, 2, 0), (0, 0, 1))),
    "reduce_max": lambda x: jnp.max(x, 1),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 7),
    "reduce_sum": lambda x: jnp.sum(x, 1),
    "reshape": lambda x: lax.reshape(x, (6, 4), (1, 0)),
    "rev": lambda x: lax.rev(x, (1,)),
    "scatter": lambda x: lax.scatter(x, rows(x), x, SCATTER, mode="drop"),
    "scatter-add": lambda x: lax.scatter_add(x, rows(x), x, SCATTER, mode="clip"),
    "slice": lambda x: lax.slice(x, (0, 1), (4, 6), (2, 1)),
    "sort": lambda x: lax.sort([x, x], dimension=0, num_keys=2),
    "split": lambda x: lax.split(x, (2, 4), 1),
    "squeeze": lambda x: lax.squeeze(x[:, :1], (1,)),
    "stack": lambda x: jnp.stack([x, x], 1),
    "tile": lambda x: jnp.tile(x, (2, 1)),
    "top_k": lambda x: lax.top_k(x, 2),
    "transpose": lambda x: lax.transpose(x, (1, 0)),
    "unstack": lambda x: jnp.unstack(x, axis=1),
}

FOLLOWS = {
    "broadcast_in_dim": {"shape"},
    "convert_element_type": {"new_dtype"},
    "dot_general": {"preferred_element_type"},
    "iota": set[str](),
    "reshape": {"new_sizes"},
    "squeeze": {"dimensions"},
    "split": set[str](),
}
"""Parameters that the shapes and dtypes of operands and result say already."""


def watch(function: Any) -> Iterator[tuple[str, Watched]]:
    """Number a function's equations, under all rewrites that need no name, and yield the parameters of each."""
    closed = jax.make_jaxpr(function)(X)
    watched = [eqn.replace(params=Watched(eqn.params)) for eqn in closed.jaxpr.eqns]
    changed = closed.replace(jaxpr=closed.jaxpr.replace(eqns=watched))
    Numbering(Algebra(frozenset())).run(changed, [new_term("x", X.shape, X.dtype)])
    yield from ((eqn.primitive.name, eqn.params) for eqn in watched)


@pytest.mark.parametrize("primitive", USES)
def test_every_parameter_is_read(primitive):
    found = [params for name, params in watch(USES[primitive]) if name == primitive]
    assert found, f"the function does not use {primitive}"
    for params in found:
        assert params.keys() - params.read <= IGNORED_PARAMS | FOLLOWS.get(primitive, set())


def test_a_reshape_of_axes_in_another_order_has_another_name():
    plain, reordered, transposed = (
        names(function, X.shape)
        for function in (
            lambda x: lax.reshape(x, (6, 4)),
            lambda x: lax.reshape(x, (6, 4), (1, 0)),
            lambda x: lax.reshape(x.T, (6, 4)),
        )
    )
    assert plain != reordered == transposed
