"""Wrong values of hyperparameters: common mistakes in ports. No framework is imported here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

WrongValues = Callable[[Any], list[Any]]
"""A value to wrong values for it; none where the kind of fault does not apply."""


@dataclass(frozen=True)
class HyperparameterRule:
    """One kind of wrong hyperparameter.

    Attributes:
        kind: its name in the table of faults.
        stands_for: the bug it stands for.
        names: of attributes, with a leading or trailing `*` as a wildcard; empty: all that no other kind matches.
        wrong: the wrong values.
        tries: how many layers of one class get the same wrong value until one is decided; all are reported.
    """

    kind: str
    stands_for: str
    names: tuple[str, ...]
    wrong: WrongValues
    tries: int = 3


def is_float(value: Any) -> bool:
    """Whether a value is a float."""
    return isinstance(value, float)


def is_size(value: Any) -> bool:
    """Whether a value is an integer, or a sequence of integers."""
    if isinstance(value, tuple | list):
        return bool(value) and all(map(is_size, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _map_integers(value: Any, change: Callable[[int], int]) -> Any:
    return (
        type(value)(_map_integers(one, change) for one in value) if isinstance(value, tuple | list) else change(value)
    )


def _wrong_if(test: Callable[[Any], bool], *wrong: Callable[[Any], Any]) -> WrongValues:
    return lambda value: [change(value) for change in wrong] if test(value) else []


def _is_fraction(value: Any) -> bool:
    return is_float(value) and 0 < value < 1


def _is_fraction_but_half(value: Any) -> bool:
    return _is_fraction(value) and value != 0.5


def _largest_divisor(value: int) -> int:
    """Divide by the least prime factor; 2 for 1."""
    return value // next(factor for factor in range(2, value + 1) if value % factor == 0) if value > 1 else 2


def _wrong_padding(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [{"SAME": "VALID", "VALID": "SAME"}.get(value, "SAME")]
    return [_map_integers(value, lambda pad: 0 if pad else 1)] if is_size(value) else []


WRONG_ACTIVATIONS = {
    "relu": jax.nn.gelu, "gelu": jax.nn.relu, "tanh": jax.nn.sigmoid, "sigmoid": jnp.tanh, "silu": jax.nn.relu,
    "swish": jax.nn.relu, "elu": jax.nn.relu, "selu": jax.nn.elu, "leaky_relu": jax.nn.relu, "relu6": jax.nn.relu,
    "softplus": jax.nn.relu, "hard_tanh": jnp.tanh, "mish": jax.nn.silu, "celu": jax.nn.relu, "softmax": jax.nn.sigmoid,
    "log_softmax": jax.nn.softmax,
}  # fmt: skip
"""Name of an activation function to a wrong one."""


def _wrong_activation(value: Any) -> list[Any]:
    other = WRONG_ACTIVATIONS.get(getattr(value, "__name__", ""))
    return [other] if callable(value) and other is not None else []


def _wrong_dtypes(value: Any) -> list[Any]:
    if value is None or (isinstance(value, type | str) and jnp.dtype(value) == jnp.float32):
        return [jnp.bfloat16]
    known = isinstance(value, type | str) and jnp.dtype(value) in (jnp.bfloat16, jnp.float16)
    return [jnp.float32] if known else []


DROPOUT_NAMES = ("rate", "*dropout", "*dropout_rate", "*drop_rate")
"""Names of dropout rates; a `decay_rate` is a momentum."""

HYPERPARAMETER_RULES: tuple[HyperparameterRule, ...] = (
    HyperparameterRule(
        "builder: other eps",
        "eps=1e-6 for 1e-5, and 1e-3 in batch norm",
        ("eps", "epsilon"),
        _wrong_if(is_float, lambda eps: 1e-5 if eps == 1e-6 else 1e-6, lambda eps: 1e-4 if eps == 1e-3 else 1e-3),
    ),
    HyperparameterRule(
        "builder: other momentum",
        "the other library's default",
        ("momentum", "decay", "decay_rate"),
        _wrong_if(_is_fraction, lambda decay: 0.99 if decay == 0.9 else 0.9),
    ),
    HyperparameterRule(
        "builder: 1 - momentum",
        "momentum taken for 1 - momentum",
        ("momentum", "decay", "decay_rate"),
        _wrong_if(_is_fraction_but_half, lambda decay: 1 - decay),
    ),
    HyperparameterRule(
        "builder: other rate",
        "another share dropped",
        DROPOUT_NAMES,
        _wrong_if(lambda rate: is_float(rate) and 0 <= rate < 1, lambda rate: rate / 2 if rate else 0.1),
    ),
    HyperparameterRule(
        "builder: rate for keep rate",
        "Dropout(0.9) for keep_prob=0.9",
        DROPOUT_NAMES,
        _wrong_if(_is_fraction_but_half, lambda rate: 1 - rate),
    ),
    HyperparameterRule("builder: other padding", "SAME for VALID", ("padding",), _wrong_padding),
    HyperparameterRule(
        "builder: other strides",
        "a stride forgotten",
        ("stride*", "*strides"),
        _wrong_if(
            lambda value: value is None or is_size(value),
            lambda value: 2 if value is None else _map_integers(value, lambda stride: 2 if stride == 1 else 1),
        ),
    ),
    HyperparameterRule(
        "builder: other dilation",
        "a dilation forgotten, or rate taken for stride",
        ("*dilation",),
        _wrong_if(
            lambda value: value is None or is_size(value),
            lambda value: 2 if value is None else _map_integers(value, lambda by: 2 if by == 1 else 1),
        ),
    ),
    HyperparameterRule(
        "builder: other groups",
        "groups for the size of a group",
        ("*groups",),
        _wrong_if(is_size, lambda value: _map_integers(value, _largest_divisor)),
    ),
    HyperparameterRule(
        "builder: other axis",
        "another axis of a norm or sum",
        ("axis", "*_axis", "axes", "*_axes", "channel_index"),
        _wrong_if(is_size, lambda value: _map_integers(value, lambda axis: axis - 1 if axis < 0 else axis + 1)),
    ),
    HyperparameterRule("builder: other dtype", "computed in bfloat16", ("dtype", "*compute_dtype"), _wrong_dtypes),
    HyperparameterRule(
        "builder: other precision",
        "matrix products in another precision",
        ("precision",),
        _wrong_if(
            lambda value: value is None or isinstance(value, str | jax.lax.Precision),
            lambda value: jax.lax.Precision.HIGHEST if value is None else None,
        ),
        tries=1,
    ),
    HyperparameterRule(
        "builder: mode given twice",
        "a mode fixed when the layer is built",
        ("use_running_average", "deterministic", "decode"),
        lambda value: [True] if value is None else [],
    ),
    HyperparameterRule(
        "builder: flag",
        "a flag the other way round",
        (),
        _wrong_if(lambda value: isinstance(value, bool), lambda flag: not flag),
    ),
    HyperparameterRule("builder: other activation", "the other library's default activation", (), _wrong_activation),
    HyperparameterRule(
        "builder: other number", "a number typed wrongly", (), _wrong_if(is_float, lambda value: value * 2 or 1.0)
    ),
    HyperparameterRule(
        "builder: other size",
        "one more feature, head or iteration",
        (),
        _wrong_if(is_size, lambda value: _map_integers(value, lambda size: size + 1)),
    ),
)
"""Every kind, in the order of the table; the last are for attributes that no other kind has a value for."""


def wrong_values(
    name: str, value: Any, rules: tuple[HyperparameterRule, ...] = HYPERPARAMETER_RULES
) -> Iterator[tuple[HyperparameterRule, Any]]:
    """Yield the wrong values of a hyperparameter, each with its kind.

    Args:
        name: of the attribute; `layers[1]` is an element of it.
        value: what it is.
        rules: the kinds.
    """
    named = [(rule, wrong) for rule in rules if _matches_name(name, rule.names) for wrong in rule.wrong(value)]
    yield from named or [(rule, wrong) for rule in rules if not rule.names for wrong in rule.wrong(value)]


def _matches_name(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name == pattern
        or (pattern.startswith("*") and name.endswith(pattern[1:]))
        or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )
