"""Wrong values of hyperparameters, as somebody who ports a model writes them. No framework is imported here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

Wrong = Callable[[Any], list[Any]]
"""A value to the wrong ones for it; none where it is no value of that kind."""


@dataclass(frozen=True)
class Rule:
    """One kind of wrong hyperparameter.

    Attributes:
        kind: its name in the matrix.
        stands_for: the bug it stands for.
        names: of attributes; one that ends in `*` or begins with it is a part of a name; empty: of every other.
        wrong: what is put in.
        tries: how many layers of one class get the same wrong value until one is decided; all are reported.
    """

    kind: str
    stands_for: str
    names: tuple[str, ...]
    wrong: Wrong
    tries: int = 3


def is_float(value: Any) -> bool:
    """Whether it is a real number."""
    return isinstance(value, float)


def is_size(value: Any) -> bool:
    """Whether it is a whole number, or several."""
    if isinstance(value, tuple | list):
        return bool(value) and all(map(is_size, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _each(value: Any, change: Callable[[int], int]) -> Any:
    return type(value)(_each(one, change) for one in value) if isinstance(value, tuple | list) else change(value)


def _of(test: Callable[[Any], bool], *wrong: Callable[[Any], Any]) -> Wrong:
    return lambda value: [change(value) for change in wrong] if test(value) else []


def _share(value: Any) -> bool:
    return is_float(value) and 0 < value < 1


def _unlike_half(value: Any) -> bool:
    return _share(value) and value != 0.5


def _divided(value: int) -> int:
    """By its least prime factor; twice as many of one."""
    return value // next(factor for factor in range(2, value + 1) if value % factor == 0) if value > 1 else 2


def _padding(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [{"SAME": "VALID", "VALID": "SAME"}.get(value, "SAME")]
    return [_each(value, lambda pad: 0 if pad else 1)] if is_size(value) else []


ACTIVATIONS = {
    "relu": jax.nn.gelu, "gelu": jax.nn.relu, "tanh": jax.nn.sigmoid, "sigmoid": jnp.tanh, "silu": jax.nn.relu,
    "swish": jax.nn.relu, "elu": jax.nn.relu, "selu": jax.nn.elu, "leaky_relu": jax.nn.relu, "relu6": jax.nn.relu,
    "softplus": jax.nn.relu, "hard_tanh": jnp.tanh, "mish": jax.nn.silu, "celu": jax.nn.relu, "softmax": jax.nn.sigmoid,
    "log_softmax": jax.nn.softmax,
}  # fmt: skip
"""An activation, by the name of its function, to another."""


def _activation(value: Any) -> list[Any]:
    other = ACTIVATIONS.get(getattr(value, "__name__", ""))
    return [other] if callable(value) and other is not None else []


def _dtype(value: Any) -> list[Any]:
    if value is None or (isinstance(value, type | str) and jnp.dtype(value) == jnp.float32):
        return [jnp.bfloat16]
    known = isinstance(value, type | str) and jnp.dtype(value) in (jnp.bfloat16, jnp.float16)
    return [jnp.float32] if known else []


DROPPED = ("rate", "*dropout", "*dropout_rate", "*drop_rate")
"""Names of a share that is dropped; a `decay_rate` is a momentum."""


RULES: tuple[Rule, ...] = (
    Rule("builder: other eps", "eps=1e-6 for 1e-5, and 1e-3 in batch norm", ("eps", "epsilon"),
         _of(is_float, lambda eps: 1e-5 if eps == 1e-6 else 1e-6, lambda eps: 1e-4 if eps == 1e-3 else 1e-3)),
    Rule("builder: other momentum", "the other library's default", ("momentum", "decay", "decay_rate"),
         _of(_share, lambda decay: 0.99 if decay == 0.9 else 0.9)),
    Rule("builder: 1 - momentum", "momentum taken for 1 - momentum", ("momentum", "decay", "decay_rate"),
         _of(_unlike_half, lambda decay: 1 - decay)),
    Rule("builder: other rate", "another share dropped", DROPPED,
         _of(lambda rate: is_float(rate) and 0 <= rate < 1, lambda rate: rate / 2 if rate else 0.1)),
    Rule("builder: rate for keep rate", "Dropout(0.9) for keep_prob=0.9", DROPPED,
         _of(_unlike_half, lambda rate: 1 - rate)),
    Rule("builder: other padding", "SAME for VALID", ("padding",), _padding),
    Rule("builder: other strides", "a stride forgotten", ("stride*", "*strides"),
         _of(lambda value: value is None or is_size(value), lambda value: 2 if value is None else _each(
             value, lambda stride: 2 if stride == 1 else 1))),
    Rule("builder: other dilation", "a dilation forgotten, or rate taken for stride", ("*dilation",),
         _of(lambda value: value is None or is_size(value), lambda value: 2 if value is None else _each(
             value, lambda by: 2 if by == 1 else 1))),
    Rule("builder: other groups", "groups for the size of a group", ("*groups",), _of(is_size, lambda value: _each(
        value, _divided))),
    Rule("builder: other axis", "another axis of a norm or sum", ("axis", "*_axis", "axes", "*_axes", "channel_index"),
         _of(is_size, lambda value: _each(value, lambda axis: axis - 1 if axis < 0 else axis + 1))),
    Rule("builder: other dtype", "computed in bfloat16", ("dtype", "*compute_dtype"), _dtype),
    Rule("builder: other precision", "matrix products in another precision", ("precision",),
         _of(lambda value: value is None or isinstance(value, str | jax.lax.Precision), lambda value: (
             jax.lax.Precision.HIGHEST if value is None else None)), tries=1),
    Rule("builder: mode given twice", "a mode fixed when the layer is built",
         ("use_running_average", "deterministic", "decode"), lambda value: [True] if value is None else []),
    Rule("builder: flag", "a flag the other way round", (), _of(lambda value: isinstance(value, bool),
                                                               lambda flag: not flag)),
    Rule("builder: other activation", "the other library's default activation", (), _activation),
    Rule("builder: other number", "a number typed wrongly", (), _of(is_float, lambda value: value * 2 or 1.0)),
    Rule("builder: other size", "one more feature, head or turn", (), _of(is_size, lambda value: _each(
        value, lambda size: size + 1))),
)  # fmt: skip
"""Every kind, in the order of the matrix; the last are for attributes that no other kind has a value for."""


def wrong_values(name: str, value: Any, rules: tuple[Rule, ...] = RULES) -> Iterator[tuple[Rule, Any]]:
    """The wrong values of a hyperparameter, each with its kind.

    Args:
        name: of the attribute; `layers[1]` is an element of it.
        value: what it is.
        rules: the kinds.
    """
    named = [(rule, wrong) for rule in rules if _named(name, rule.names) for wrong in rule.wrong(value)]
    yield from named or [(rule, wrong) for rule in rules if not rule.names for wrong in rule.wrong(value)]


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name == pattern
        or (pattern.startswith("*") and name.endswith(pattern[1:]))
        or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )
