"""What decides an operation, read from its parameters: arrays by their bytes, jaxprs equation by equation.

Nothing here goes through a printed form: that abbreviates arrays, hides the constants of inner jaxprs, and says what
the author of an object likes. Content is plain data, and equal content means equal behaviour:

- Numbers, texts, dtypes, arrays and keys: by value.
- Containers, enums, named tuples, frozen dataclasses, partials, bound methods: by their type and what they hold.
- Meshes, shardings, tree structures: by what they are made of.
- Jaxprs: by their equations and constants, whatever their variables are called.
- Functions and types of Python and jax, primitives of jax: by where they are defined.
- Any other callable or object: by a symbol of its own (`equiv.programs.identity`).
"""

import dataclasses
import enum
import functools
import hashlib
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.extend import core

from equiv.compat import partition_parts
from equiv.programs.identity import fresh_symbol, name_object
from equiv.programs.jaxpr import called_jaxpr, is_axis_effect, open_jaxpr, read_scan, read_while, visit_equations
from equiv.programs.primitives import CALLS, FOREIGN_CALLS, STATEFUL, is_jax_primitive

Content = Any
"""None, a truth value, number, text or bytes, or a tuple or list of such."""


def digest(*parts: Content) -> str:
    """Hash plain data to a name.

    Raises:
        TypeError: a part is no plain data: its content has to be read first.
    """
    name = hashlib.blake2b(encode(*parts), digest_size=16).hexdigest()
    if _recorded:
        _recorded[-1][name] = parts
    return name


_recorded: list[dict[str, tuple[Content, ...]]] = []


@contextmanager
def record_names() -> Iterator[dict[str, tuple[Content, ...]]]:
    """Within the context every name that is given is kept, with what it is the name of."""
    _recorded.append({})
    try:
        yield _recorded[-1]
    finally:
        _recorded.pop()


def encode(*parts: Content) -> bytes:
    """Encode plain data, different parts as different bytes: MessagePack marks each with its kind and length.

    Raises:
        TypeError: a part is no plain data.
    """
    return _ENCODER.encode(parts)


def _encode_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain data")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_number)


@dataclasses.dataclass(frozen=True)
class ContentReader:
    """Reads content.

    Attributes:
        name_unknown: what stands for a callable, or for an object without a rule.
    """

    name_unknown: Callable[[Any], Content] = name_object

    def read(self, value: Any) -> Content:
        """Read the content of any value."""
        kind = type(value)
        if kind in EXACT_TYPES:
            return EXACT_TYPES[kind](self, value)
        for applies, rule in RULES:
            if applies(value) and (content := rule(self, value)) is not None:
                return content
        return self.name_unknown(value)

    def read_all(self, values: Iterable[Any]) -> tuple[Content, ...]:
        """Read several values."""
        return tuple(map(self.read, values))

    def read_parameters(self, params: Mapping[str, Any]) -> list[tuple[str, Content]]:
        """Read parameters, in the order of their names."""
        return [(key, self._read_parameter(params[key])) for key in sorted(params)]

    def _read_parameter(self, value: Any) -> Content:
        try:
            return self.read(value)
        except RecursionError:  # it contains itself
            return self.name_unknown(value)

    def read_equation(self, eqn: Any) -> Content:
        """Read an equation's primitive and parameters; of a call, what is called."""
        name, own = eqn.primitive.name, is_jax_primitive(eqn.primitive)
        if own and name in CALLS:
            return ("call", self.read(called_jaxpr(eqn)))
        if own and name in LOOPS:
            return (name, *self.read_all(vars(LOOPS[name](eqn)).values()))
        state = (fresh_symbol(),) if name in STATEFUL else ()
        return ("operation", self.read(eqn.primitive), self.read_parameters(eqn.params), *state)


def read_operation(eqn: Any, without: frozenset[str] = frozenset()) -> Content:
    """Read what decides an equation's results, given its operands.

    Args:
        eqn: the equation.
        without: parameters of jax's own primitives that decide nothing.
    """
    reader, own = ContentReader(), is_jax_primitive(eqn.primitive)
    params = {key: value for key, value in eqn.params.items() if not (own and key in without)}
    # What reads or changes something outside gives another result each time it runs.
    pure = eqn.primitive.name not in STATEFUL and all(map(is_axis_effect, eqn.effects))
    return (reader.read(eqn.primitive), reader.read_parameters(params), *(() if pure else (fresh_symbol(),)))


def name_by_code(value: Any) -> Content:
    """Name an object by what two calls of one builder have in common: a function by its code and the numbers it uses.

    Such names say that two functions are written alike, not that they do the same: they prove nothing.
    """
    if isinstance(value, types.FunctionType):
        held = (*_closed_over(value), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return ("code", value.__module__, value.__qualname__, _code_parts(value.__code__), _plain_values(held))
    kind = value if isinstance(value, type) else type(value)
    return ("kind", kind.__module__, kind.__qualname__)


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not bound yet
            continue


def _code_parts(code: types.CodeType) -> Content:
    inner = tuple(_code_parts(one) for one in code.co_consts if isinstance(one, types.CodeType))
    return (code.co_code, code.co_names, _plain_values(code.co_consts), inner)


def _plain_values(values: Iterable[Any]) -> Content:
    """The values that say all: an array that a function uses may be an initial value, which may be random."""
    return ContentReader().read_all(one for one in values if type(one) in PLAIN_TYPES)


PLAIN_TYPES = (bool, int, float, str, bytes)


def read_key(key: Any) -> Content:
    """Read a constant key of `jax.random`: its implementation and its numbers."""
    own = jax.random.key_impl(key)
    known = isinstance(own, str) and jax.random.key(0, impl=own).dtype == key.dtype
    # The name of a dtype has a tag that anybody's implementation may have.
    implementation = own if known else name_object(getattr(key.dtype, "_impl", key.dtype))
    return ("key", key.dtype.name, implementation, ContentReader().read(np.asarray(jax.random.key_data(key))))


def calls_foreign_code(jaxpr: Any) -> bool:
    """Whether a program calls something that its jaxpr does not show: a host function, or a user's own primitive."""
    primitives = {eqn.primitive for _, eqn in visit_equations(jaxpr)}
    return any(one.name in FOREIGN_CALLS or not is_jax_primitive(one) for one in primitives)


def _read_int(_: ContentReader, value: int) -> Content:
    # MessagePack has integers of 64 bits.
    if value.bit_length() < 64:
        return value
    return ("integer", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _read_text(_: ContentReader, value: str) -> Content:
    return value if value.isascii() else ("text", value.encode("utf-8", "surrogatepass"))


def _read_set(reader: ContentReader, value: Iterable[Any]) -> Content:
    return ("set", *sorted(map(encode, map(reader.read, value))))


def _read_mapping(reader: ContentReader, value: Mapping[Any, Any]) -> Content:
    # In their order, which a function that gets them can see.
    return ("mapping", *(reader.read_all(item) for item in value.items()))


def _read_partial(reader: ContentReader, value: functools.partial[Any]) -> Content:
    return ("partial", reader.read_all((value.func, value.args, value.keywords)))


def _read_array(reader: ContentReader, value: np.ndarray) -> Content:
    if value.dtype.hasobject:
        return ("objects", value.shape, *reader.read_all(value.reshape(-1).tolist()))
    return ("array", reader.read(value.dtype), value.shape, digest(np.ascontiguousarray(value).tobytes()))


def _read_dtype(_: ContentReader, value: np.dtype) -> Content:
    # Of structured dtypes neither name nor text has the places of the fields.
    return ("dtype", value.name, value.str) if value.names is None and value.subdtype is None else None


def _read_jax_array(reader: ContentReader, value: Any) -> Content:
    if isinstance(value, Tracer):
        return None
    return read_key(value) if is_key(value) else reader.read(np.asarray(value))


def _read_tree(reader: ContentReader, value: Any) -> Content:
    return ("tree", reader.read(value.node_data()), value.num_leaves, *reader.read_all(value.children()))


def _read_primitive(reader: ContentReader, value: core.Primitive) -> Content:
    return ("primitive", value.name, *(() if is_jax_primitive(value) else (reader.name_unknown(value),)))


def _read_dataclass(reader: ContentReader, value: Any) -> Content:
    names, kind = [field.name for field in dataclasses.fields(value)], type(value)
    # What is not frozen may change, and what is no field, or is inherited from `dict` or `float`, could hide anything.
    hidden = not set(getattr(value, "__dict__", ())) <= set(names) or any(map(_is_builtin, kind.__mro__[:-1]))
    if not kind.__dataclass_params__.frozen or hidden:
        return None
    return ("dataclass", reader.read(kind), *(reader.read(getattr(value, name)) for name in names))


def _is_builtin(kind: type) -> bool:
    """Whether a type is not defined in Python."""
    return not kind.__flags__ & 1 << 9  # Py_TPFLAGS_HEAPTYPE, of Python's Include/object.h


def _read_named_tuple(reader: ContentReader, value: Any) -> Content:
    return (
        None if getattr(value, "__dict__", None) else ("named tuple", reader.read(type(value)), *reader.read_all(value))
    )


def _read_definition(_: ContentReader, value: Any) -> Content:
    """Where a function or type of Python or jax is defined; None for any other."""
    module, name = value.__module__, value.__qualname__
    # The jax that gave a name is part of the prover's version; numpy's functions may change, its types do not.
    known = ("builtins", "jax", "jaxlib", *(("numpy", "ml_dtypes") if isinstance(value, type) else ()))
    if not isinstance(module, str) or module.partition(".")[0] not in known:
        return None
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):  # it is defined inside a function
        return None
    return ("defined", module, name) if found is value else None


def _read_jaxpr(reader: ContentReader, value: Any) -> Content:
    """Read a jaxpr; its variables are numbered in the order in which they stand."""
    jaxpr, consts = open_jaxpr(value)
    numbers: dict[Any, int] = {}

    def bind(variables: Sequence[Any]) -> Content:
        numbers.update(zip(variables, range(len(numbers), len(numbers) + len(variables)), strict=True))
        return [_read_aval(reader, variable.aval) for variable in variables]

    def refer(atoms: Iterable[Any]) -> Content:
        return [_read_literal(reader, one) if isinstance(one, core.Literal) else numbers[one] for one in atoms]

    given = (bind(jaxpr.constvars), bind(jaxpr.invars), reader.read_all(consts))
    equations = [(reader.read_equation(eqn), refer(eqn.invars), bind(eqn.outvars)) for eqn in jaxpr.eqns]
    return ("jaxpr", given, equations, refer(jaxpr.outvars))


def _read_literal(reader: ContentReader, atom: Any) -> Content:
    return ("literal", reader.read(np.asarray(atom.val, atom.aval.dtype)))


def _read_aval(reader: ContentReader, aval: Any) -> Content:
    # A reference has the aval of the array inside, and where it lives.
    parts = (getattr(aval, name, None) for name in ("shape", "dtype", "memory_space"))
    inner = getattr(aval, "inner_aval", None)
    return (reader.read(type(aval)), *(reader.read_all(parts) if inner is None else _read_aval(reader, inner)))


def is_key(value: Any) -> bool:
    """Whether a constant is a key of `jax.random`, whose numbers no array shows."""
    dtype = None if isinstance(value, np.ndarray) else getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _read_parts(*names: str) -> Callable[[ContentReader, Any], Content]:
    """Read an object by these attributes; it has no rule where a release of jax has others."""

    def read(reader: ContentReader, value: Any) -> Content:
        if not all(hasattr(value, name) for name in names):
            return None
        return ("made of", reader.read(type(value)), *(reader.read(getattr(value, name)) for name in names))

    return read


def _read_items(tag: str) -> Callable[[ContentReader, Any], Content]:
    return lambda reader, value: (tag, *reader.read_all(value))


def _read_itself(_: ContentReader, value: Any) -> Content:
    return value


LOOPS: dict[str, Callable[[Any], Any]] = {"scan": read_scan, "while": read_while}
"""Loops to their parts, which releases of jax keep in parameters of several kinds."""


Rule = Callable[[ContentReader, Any], Content]
"""Reads a value; None where it has no content."""

EXACT_TYPES: dict[type, Rule] = {
    **dict.fromkeys((type(None), bool, float, bytes), _read_itself),
    int: _read_int,
    str: _read_text,
    complex: lambda _, value: ("complex", value.real, value.imag),
    type(...): lambda _, value: ("ellipsis",),
    slice: lambda reader, value: ("slice", *reader.read_all((value.start, value.stop, value.step))),
    range: lambda reader, value: ("range", *reader.read_all((value.start, value.stop, value.step))),
    tuple: _read_items("tuple"),
    list: _read_items("list"),
    **dict.fromkeys((set, frozenset), _read_set),
    **dict.fromkeys((dict, types.MappingProxyType), _read_mapping),
    **dict.fromkeys((functools.partial, jax.tree_util.Partial), _read_partial),
    types.MethodType: lambda reader, value: ("method", *reader.read_all((value.__func__, value.__self__))),
    np.ndarray: _read_array,
}
"""Rules for exactly these types: a subclass may do something else."""


def _has_type(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _is_of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_library_array(value: Any) -> bool:
    # jax keeps constants in arrays of several classes, and some wrap a numpy array to make it hashable.
    own = type(value).__module__.partition(".")[0] in ("jax", "jaxlib")
    return own and not isinstance(value, type) and hasattr(value, "__array__")


RULES: tuple[tuple[Callable[[Any], bool], Rule], ...] = (
    (_is_of(core.Jaxpr, core.ClosedJaxpr), _read_jaxpr),
    (
        _is_of(enum.Enum),
        lambda reader, value: ("enum", reader.read(type(value)), *reader.read_all((value.name, value._value_))),
    ),
    (_is_of(np.dtype), _read_dtype),
    (_is_of(np.generic), lambda reader, value: ("number", reader.read(np.asarray(value)))),
    (_is_of(core.Primitive), _read_primitive),
    (_is_of(jax.tree_util.PyTreeDef), _read_tree),
    (_is_of(jax.Device), lambda _, value: ("device", value.platform, value.id)),
    (_has_type(ShapedArray), _read_aval),
    (_has_type(jax.sharding.Mesh), _read_parts("axis_names", "axis_sizes", "axis_types", "device_ids")),
    (_has_type(jax.sharding.AbstractMesh), _read_parts("axis_names", "axis_sizes", "axis_types")),
    (
        _has_type(jax.sharding.PartitionSpec),
        lambda reader, value: ("partition", *reader.read_all(partition_parts(value))),
    ),
    (_has_type(jax.sharding.NamedSharding), _read_parts("mesh", "spec", "memory_kind")),
    (_has_type(jax.sharding.SingleDeviceSharding), _read_parts("device_set", "memory_kind")),
    (_is_dataclass, _read_dataclass),
    (lambda value: isinstance(value, tuple) and hasattr(value, "_fields"), _read_named_tuple),
    (_is_library_array, _read_jax_array),
    (_is_of(type, types.FunctionType, types.BuiltinFunctionType), _read_definition),
)
"""Which values, and how to read them; the first that gives content counts."""
