"""One operation as an expression of `jax.numpy` and `jax.lax`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiv.errors import EquivError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class WrittenValue:
    """A value as it stands in the code.

    Attributes:
        text: an expression of its shape and dtype.
        shape: its shape.
        dtype: its dtype.
        filled: the number that fills it, as a literal; empty where it is computed.
    """

    text: str
    shape: tuple[int, ...]
    dtype: str
    filled: str = ""

    @property
    def array(self) -> str:
        """An expression that has the methods of an array: a number has none."""
        return self.text if self.shape or not self.filled else f"jnp.asarray({self.text})"

    @property
    def is_float(self) -> bool:
        """Whether its dtype is one of floats."""
        return "float" in self.dtype


@dataclass(frozen=True)
class Result:
    """Shape and dtype of what an operation gives."""

    shape: tuple[int, ...]
    dtype: str


def number_literal(number: Any, dtype: str) -> str:
    """A number as a literal of Python."""
    if dtype == "bool":
        return str(bool(number))
    if "float" not in dtype:
        return str(int(number))
    text = repr(float(number))
    return text.replace("nan", "jnp.nan").replace("inf", "jnp.inf")


def fill(number: Any, shape: tuple[int, ...], dtype: str) -> WrittenValue:
    """An array that one number fills."""
    literal = number_literal(number, dtype)
    own = dtype in ("float64", "bool")
    if not shape:
        return WrittenValue(literal if own else f'jnp.asarray({literal}, "{dtype}")', shape, dtype, literal)
    named = {"0.0": "jnp.zeros", "1.0": "jnp.ones"}.get(literal)
    if own and named:
        return WrittenValue(f"{named}({shape})", shape, dtype, literal)
    given = "" if own else f', "{dtype}"'
    return WrittenValue(f"jnp.full({shape}, {literal}{given})", shape, dtype, literal)


def write_expression(
    primitive: str, params: Mapping[str, Any], ins: Sequence[WrittenValue], outs: Sequence[Result]
) -> str:
    """Write an operation; of one with several results an expression of all.

    Args:
        primitive: its name.
        params: its parameters.
        ins: its operands.
        outs: shape and dtype of its results.

    Raises:
        EquivError: it cannot be written with `jax.numpy` and `jax.lax`.
    """
    if primitive in INFIX:
        return _write_infix(INFIX[primitive], ins)
    if primitive in PLAIN:
        return f"{PLAIN[primitive]}({', '.join(_like_scalars(ins))})"
    if primitive in FULL:
        return f"{FULL[primitive]}({', '.join(one.text for one in ins)})"
    if primitive in REDUCED:
        dtype = "" if ins[0].is_float or primitive not in ("reduce_sum", "reduce_prod") else f', "{outs[0].dtype}"'
        return f"{ins[0].text}.{REDUCED[primitive]}({_ints(params['axes'])}{dtype})"
    if primitive in CUMULATED:
        return f"lax.{primitive}({ins[0].text}, {params['axis']}, reverse={params['reverse']})"
    if primitive in SCATTERED:
        return _write_scatter(primitive, params, ins)
    if primitive not in WRITERS:
        raise EquivError(
            f"the operation {primitive} cannot be written with jax.numpy and jax.lax alone.",
            fix="Call equiv locate for its place.",
        )
    return WRITERS[primitive](params, ins, outs)


def _like_scalars(ins: Sequence[WrittenValue]) -> list[str]:
    """The operands of an operation element by element: a number that fills an array as the number alone.

    An operand that is computed has the shape and the dtype of the result, so that the number takes them, too.
    """
    if all(one.filled for one in ins):
        return [one.text for one in ins]
    return [one.filled or one.text for one in ins]


def _write_infix(sign: str, ins: Sequence[WrittenValue]) -> str:
    left, right = (f"({text})" if text.startswith("-") else text for text in _like_scalars(ins))
    return f"{left} {sign} {right}"


def _ints(values: Any) -> Any:
    """Numbers in tuples, without the types of numpy, as they are written."""
    return tuple(map(_ints, values)) if isinstance(values, list | tuple) else int(values)


INFIX = {
    "add": "+", "add_any": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "eq": "==", "ne": "!=",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "shift_left": "<<",
}  # fmt: skip

PLAIN = {
    name: f"jnp.{name}"
    for name in (
        "abs", "ceil", "cbrt", "cos", "cosh", "exp", "exp2", "expm1", "floor", "imag", "log", "log1p", "nextafter",
        "real", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh",
    )
} | {
    "acos": "jnp.arccos", "acosh": "jnp.arccosh", "asin": "jnp.arcsin", "asinh": "jnp.arcsinh", "atan": "jnp.arctan",
    "atan2": "jnp.arctan2", "atanh": "jnp.arctanh", "conj": "jnp.conj", "is_finite": "jnp.isfinite",
    "max": "jnp.maximum", "min": "jnp.minimum", "pow": "jnp.power",
}  # fmt: skip
"""Functions of elements that take numbers beside arrays."""

FULL = {
    name: f"lax.{name}"
    for name in (
        "complex", "digamma", "erf", "erf_inv", "erfc", "igamma", "lgamma", "logistic", "rem", "rsqrt",
        "shift_right_arithmetic", "shift_right_logical",
    )
}  # fmt: skip
"""Functions of elements whose operands have one shape."""

REDUCED = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod", "reduce_and": "all",
    "reduce_or": "any",
}  # fmt: skip

CUMULATED = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")

SCATTERED = ("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max")

Writer = Callable[[Mapping[str, Any], Sequence[WrittenValue], Sequence[Result]], str]


def _write_div(_: Mapping[str, Any], ins: Sequence[WrittenValue], outs: Sequence[Result]) -> str:
    if "int" in outs[0].dtype:
        return f"lax.div({ins[0].text}, {ins[1].text})"
    return _write_infix("/", ins)


def _write_select(_: Mapping[str, Any], ins: Sequence[WrittenValue], outs: Sequence[Result]) -> str:
    if ins[0].dtype != "bool" or len(ins) != 3:
        return f"lax.select_n({', '.join(one.text for one in ins)})"
    full = ins[0].shape == outs[0].shape or not all(one.filled for one in ins[1:])
    # A number takes the dtype of the other case, where that is computed.
    one, other = _like_scalars(ins[1:]) if full else [case.text for case in ins[1:]]
    return f"jnp.where({ins[0].text}, {other}, {one})"


def _write_broadcast(params: Mapping[str, Any], ins: Sequence[WrittenValue], outs: Sequence[Result]) -> str:
    given, shape, axes = ins[0], outs[0].shape, _ints(params["broadcast_dimensions"])
    if axes == tuple(range(len(shape) - len(given.shape), len(shape))):
        return f"jnp.broadcast_to({given.text}, {shape})"
    new = tuple(axis for axis in range(len(shape)) if axis not in axes)
    if all(shape[axis] == 1 for axis in new) and tuple(shape[axis] for axis in axes) == given.shape:
        return f"jnp.expand_dims({given.text}, {new})"
    return f"lax.broadcast_in_dim({given.text}, {shape}, {axes})"


def _write_slice(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    starts, stops = _ints(params["start_indices"]), _ints(params["limit_indices"])
    steps = _ints(params["strides"] or (1,) * len(starts))
    parts = []
    for start, stop, step, size in zip(starts, stops, steps, ins[0].shape, strict=True):
        # What is taken whole stays whole where the axis is cut.
        whole = start == 0 and step == 1 and stop >= size
        parts.append(":" if whole else f"{start}:{stop}" + (f":{step}" if step > 1 else ""))
    return f"{ins[0].text}[{', '.join(parts)}]"


def _write_dot(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    (left_sum, right_sum), (left_batch, right_batch) = _ints(params["dimension_numbers"])
    left, right = ins
    if not left_batch and len(right.shape) == 2 and right_sum == (0,) and left_sum == (len(left.shape) - 1,):
        return f"{left.text} @ {right.text}"
    letters = iter(LETTERS)
    ours, theirs = {axis: next(letters) for axis in range(len(left.shape))}, dict[int, str]()
    pairs = zip((*left_batch, *left_sum), (*right_batch, *right_sum), strict=True)
    theirs.update((other, ours[one]) for one, other in pairs)
    theirs.update((axis, next(letters)) for axis in range(len(right.shape)) if axis not in theirs)
    free = [ours[axis] for axis in range(len(left.shape)) if axis not in (*left_batch, *left_sum)]
    free += [theirs[axis] for axis in range(len(right.shape)) if axis not in (*right_batch, *right_sum)]
    out = "".join((*(ours[axis] for axis in left_batch), *free))
    one, other = ("".join(side[axis] for axis in sorted(side)) for side in (ours, theirs))
    return f'jnp.einsum("{one},{other}->{out}", {left.text}, {right.text})'


def _write_conv(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    numbers = params["dimension_numbers"]
    spatial = "DHW"[-(len(numbers.lhs_spec) - 2) :] if len(numbers.lhs_spec) > 2 else ""
    specs = [_axis_letters(spec, names + spatial) for spec, names in zip(numbers, ("NC", "OI", "NC"), strict=True)]
    text = f"lax.conv_general_dilated({ins[0].text}, {ins[1].text}, {_ints(params['window_strides'])}, "
    text += f"{_ints(params['padding'])}, "
    for name in ("lhs_dilation", "rhs_dilation"):
        if set(params[name]) - {1}:
            text += f"{name}={_ints(params[name])}, "
    for name in ("feature_group_count", "batch_group_count"):
        if params[name] != 1:
            text += f"{name}={params[name]}, "
    return f"{text}dimension_numbers={tuple(specs)})".replace("'", '"')


def _axis_letters(spec: Sequence[int], names: str) -> str:
    """The letters of axes, such as `NHWC`: a spec says which axis is the batch, the feature and each of space."""
    return "".join(letter for _, letter in sorted(zip(spec, names, strict=True)))


def _write_window(params: Mapping[str, Any], ins: Sequence[WrittenValue], start: str, by: str) -> str:
    text = f"lax.reduce_window({ins[0].text}, {start}, lax.{by}, {_ints(params['window_dimensions'])}, "
    text += f"{_ints(params['window_strides'])}, {_ints(params['padding'])}"
    for name in ("base_dilation", "window_dilation"):
        if set(params[name]) - {1}:
            text += f", {name}={_ints(params[name])}"
    return f"{text})"


def _indexed(kind: str, params: Mapping[str, Any]) -> str:
    numbers = params["dimension_numbers"]
    given = enumerate(zip(numbers._fields, numbers, strict=True))
    fields = ", ".join(
        f"{_ints(value)}" if number < 3 else f"{name}={_ints(value)}"
        for number, (name, value) in given
        if value or number < 3
    )
    mode = params["mode"]
    return f'lax.{kind}DimensionNumbers({fields}), mode="{mode.name.lower()}"'.replace("fill_or_drop", "fill")


def _write_gather(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    indices = f"{ins[0].text}, {ins[1].text}"
    return f"lax.gather({indices}, {_indexed('Gather', params)}, slice_sizes={_ints(params['slice_sizes'])})"


def _write_scatter(primitive: str, params: Mapping[str, Any], ins: Sequence[WrittenValue]) -> str:
    name = primitive.replace("-", "_")
    return f"lax.{name}({', '.join(one.text for one in ins)}, {_indexed('Scatter', params)})"


def _write_pad(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    return f"lax.pad({ins[0].text}, {ins[1].text}, {_ints(params['padding_config'])})"


def _write_iota(params: Mapping[str, Any], _: Sequence[WrittenValue], outs: Sequence[Result]) -> str:
    if len(outs[0].shape) == 1:
        return f'jnp.arange({outs[0].shape[0]}, dtype="{outs[0].dtype}")'
    return f'lax.broadcasted_iota("{outs[0].dtype}", {outs[0].shape}, {int(params["dimension"])})'


def _write_split(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    ends = [sum(_ints(params["sizes"])[: n + 1]) for n in range(len(params["sizes"]) - 1)]
    return f"jnp.split({ins[0].text}, {ends}, axis={params['axis']})"


def _write_sort(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    given = ", ".join(one.text for one in ins)
    operand = given if len(ins) == 1 else f"({given})"
    return f"lax.sort({operand}, dimension={params['dimension']}, num_keys={params['num_keys']})"


def _write_transpose(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    order = _ints(params["permutation"])
    return f"{ins[0].text}.T" if order == (1, 0) else f"{ins[0].text}.transpose{order}"


def _write_round(params: Mapping[str, Any], ins: Sequence[WrittenValue], _: Sequence[Result]) -> str:
    return f"lax.round({ins[0].text}, lax.RoundingMethod({int(params['rounding_method'])}))"


WRITERS: dict[str, Writer] = {
    "neg": lambda params, ins, outs: f"-{ins[0].text}",
    "not": lambda params, ins, outs: f"~{ins[0].text}",
    "div": _write_div,
    "select_n": _write_select,
    "broadcast_in_dim": _write_broadcast,
    "slice": _write_slice,
    "dot_general": _write_dot,
    "conv_general_dilated": _write_conv,
    "gather": _write_gather,
    "pad": _write_pad,
    "iota": _write_iota,
    "split": _write_split,
    "sort": _write_sort,
    "transpose": _write_transpose,
    "round": _write_round,
    "reduce_window_sum": lambda params, ins, outs: _write_window(params, ins, "0.0", "add"),
    "reduce_window_max": lambda params, ins, outs: _write_window(params, ins, "-jnp.inf", "max"),
    "reduce_window_min": lambda params, ins, outs: _write_window(params, ins, "jnp.inf", "min"),
    "integer_pow": lambda params, ins, outs: f"{ins[0].array}**{params['y']}",
    "clamp": lambda params, ins, outs: f"jnp.clip({', '.join(ins[at].text for at in (1, 0, 2))})",
    "convert_element_type": lambda params, ins, outs: f'{ins[0].array}.astype("{outs[0].dtype}")',
    "reduce_precision": lambda params, ins, outs: (
        f"lax.reduce_precision({ins[0].text}, {params['exponent_bits']}, {params['mantissa_bits']})"
    ),
    "reshape": lambda params, ins, outs: f"{ins[0].array}.reshape({outs[0].shape})",
    "squeeze": lambda params, ins, outs: f"{ins[0].text}.squeeze({_ints(params['dimensions'])})",
    "rev": lambda params, ins, outs: f"jnp.flip({ins[0].text}, {_ints(params['dimensions'])})",
    "concatenate": lambda params, ins, outs: (
        f"jnp.concatenate([{', '.join(one.text for one in ins)}], {params['dimension']})"
    ),
    "argmax": lambda params, ins, outs: f"lax.argmax({ins[0].text}, {params['axes'][0]}, jnp.{outs[0].dtype})",
    "argmin": lambda params, ins, outs: f"lax.argmin({ins[0].text}, {params['axes'][0]}, jnp.{outs[0].dtype})",
    "top_k": lambda params, ins, outs: f"lax.top_k({ins[0].text}, {params['k']})",
    "dynamic_slice": lambda params, ins, outs: (
        f"lax.dynamic_slice({ins[0].text}, ({''.join(f'{one.text}, ' for one in ins[1:])}), {outs[0].shape})"
    ),
    "dynamic_update_slice": lambda params, ins, outs: (
        f"lax.dynamic_update_slice({ins[0].text}, {ins[1].text}, ({''.join(f'{one.text}, ' for one in ins[2:])}))"
    ),
}
