"""How a public method is called: the inputs of the batch and the constants that are its arguments.

A call is written as in Python: `encode(x)`, `__call__(x, train=True, cache=None)`, `f({"image": x}, (a, b))`. A name is
an input of the batch, `x[:, 0:4]` a part of it, everything else a literal.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from equiv.core.batch_spec import BatchTree, key_names, nested_entries
from equiv.errors import CaseError

MODE_ARGUMENTS = {
    "training": True,
    "is_training": True,
    "train": True,
    "deterministic": False,
    "use_running_average": False,
}
"""Arguments that select train or eval mode, with their value in train mode."""

LABELS = ("labels", "targets", "y")
"""Entries of a batch that a loss reads, and that a call takes only where it names them."""

EXAMPLE = "'encode(x)', '__call__(x, train=True, cache=None)'"

Methods = Mapping[str, Sequence[str]] | Sequence[str]
"""Calls as text, or public method to the inputs that are its positional arguments."""


@dataclass(frozen=True)
class Input:
    """An argument that is an input of the batch.

    Attributes:
        name: of the input.
        entries: the names of its batch entries, nested as the input is: one for an array.
        keys: the names of those that are PRNG keys.
        index: the part of it that is taken, as numpy indexes; empty: all.
    """

    name: str
    entries: BatchTree = ""
    index: tuple[int | slice, ...] = ()
    keys: frozenset[str] = frozenset()

    def take(self, array: Any) -> Any:
        """The part of an array that is taken."""
        return array[self.index] if self.index else array


@dataclass(frozen=True)
class MethodCall:
    """The arguments of a call; each is an `Input`, a constant, or a tuple, list or dict of them.

    Attributes:
        positional: in order.
        keywords: by name, but for those that select the mode.
        mode: whether it is called in train mode (True) or eval mode (False) only; None: in both, where they differ.
        mode_keywords: the arguments that say so, as they were written.
        method: its name, where that is not the key that the call is found by.
    """

    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    mode: bool | None = None
    mode_keywords: Mapping[str, bool] = field(default_factory=dict)
    method: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The batch entries that it takes, each once."""
        found = (name for one in _inputs_in((self.positional, self.keywords)) for name in _names(one.entries))
        return tuple(dict.fromkeys(found))

    @property
    def keys(self) -> frozenset[str]:
        """The batch entries that it takes as PRNG keys."""
        return frozenset().union(*(one.keys for one in _inputs_in((self.positional, self.keywords))))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of its inputs as the batch has them, each once."""
        return tuple(dict.fromkeys(one.name for one in _inputs_in((self.positional, self.keywords))))

    def in_train_mode(self, asked: bool) -> bool:
        """The mode of a call for which a mode is asked."""
        return asked if self.mode is None else self.mode

    def bind(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments of a call.

        Args:
            arrays: one for each of `inputs`.
        """
        given = dict(zip(self.inputs, arrays, strict=True))

        def fill(one: Any) -> Any:
            return _map_tree(one.entries, lambda name: one.take(given[name])) if isinstance(one, Input) else one

        return tuple(_map_argument(one, fill) for one in self.positional), {
            name: _map_argument(one, fill) for name, one in self.keywords.items()
        }

    @property
    def texts(self) -> tuple[str, ...]:
        """Its arguments as they are written."""
        keywords = {**self.keywords, **self.mode_keywords}.items()
        return (*map(_argument_text, self.positional), *(f"{name}={_argument_text(one)}" for name, one in keywords))


def call_of(*names: str) -> MethodCall:
    """The call that takes inputs of these names by position."""
    return MethodCall(tuple(Input(name, name) for name in names))


def read_methods(methods: Methods | None, batch: Mapping[str, BatchTree]) -> dict[str, MethodCall]:
    """Read how each public method is called.

    Args:
        methods: see `Methods`; None: `__call__` with every input that is no label.
        batch: the batch, whose names are the inputs.

    Raises:
        CaseError: a call cannot be read, is given twice, or takes what is no input.
    """
    if not methods:
        methods = {"__call__": tuple(name for name in batch if name not in LABELS)}
    if isinstance(methods, Mapping):
        calls = {name: call_of(*names) for name, names in methods.items()}
    else:
        calls = read_calls(methods)
    return {name: with_entries(name, call, batch) for name, call in calls.items()}


def read_calls(texts: Sequence[str], option: str = "") -> dict[str, MethodCall]:
    """Read calls, method to its arguments; which inputs there are is not known yet.

    Args:
        texts: one call each.
        option: what messages begin with: `--method` on the command line.

    Raises:
        CaseError: one cannot be read, or a method is given twice.
    """
    found: dict[str, MethodCall] = {}
    for text in texts:
        method, call = read_call(text, option or "method")
        if method in found:
            raise CaseError(
                f"{option or 'method'} {text!r}: {method} is given twice, first as "
                f"{method}({', '.join(found[method].texts)}).",
                fix="Leave one out: a method is called in one way.",
            )
        found[method] = call
    return found


def split_calls(text: str, what: str) -> tuple[str, ...]:
    """Split calls between semicolons, and read each once: `prefill(x[:, :8]); decode(x[:, 8:9])`.

    Args:
        text: the calls.
        what: what messages begin with.

    Raises:
        CaseError: they cannot be read.
    """
    try:
        calls = tuple(ast.unparse(one) for one in ast.parse(text.strip()).body)
    except (SyntaxError, ValueError):
        calls = (text,)  # reading it says what is wrong
    for call in calls or (text,):
        read_call(call, what)
    return calls


def read_call(text: str, what: str) -> tuple[str, MethodCall]:
    """Read one call: its method and arguments.

    Args:
        text: the call.
        what: what messages begin with.

    Raises:
        CaseError: it cannot be read.
    """
    try:
        return _read_call(text)
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise CaseError(
            f"{what} {text!r}: cannot be read: {reason}.",
            fix=f"Write a call with inputs of the batch and constants: {EXAMPLE}.",
        ) from error


def _read_call(text: str) -> tuple[str, MethodCall]:
    node = ast.parse(text.strip(), mode="eval").body
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("it is no call of a method")
    positional = tuple(map(_read_argument, node.args))
    keywords: dict[str, Any] = {}
    modes: dict[str, bool] = {}
    written: dict[str, bool] = {}
    for one in node.keywords:
        if one.arg is None:
            raise ValueError("** has no names")
        value = _read_argument(one.value)
        if one.arg in MODE_ARGUMENTS and isinstance(value, bool):
            modes[f"{one.arg}={value}"] = value == MODE_ARGUMENTS[one.arg]
            written[one.arg] = value
        else:
            keywords[one.arg] = value
    if len(set(modes.values())) > 1:
        raise ValueError(f"{' and '.join(modes)} are two modes")
    return node.func.id, MethodCall(positional, keywords, next(iter(modes.values()), None), written)


def _read_argument(node: ast.expr) -> Any:
    """An argument from its syntax: a name is an input, a display is read part by part, the rest is a literal."""
    match node:
        case ast.Name():
            return Input(node.id)
        case ast.Subscript(value=ast.Name(id=name)):
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return Input(name, index=tuple(map(_read_index, parts)))
        case ast.Tuple():
            return tuple(map(_read_argument, node.elts))
        case ast.List():
            return list(map(_read_argument, node.elts))
        case ast.Dict():
            if None in node.keys:
                raise ValueError("** has no names")
            keys = (ast.literal_eval(key) for key in node.keys if key is not None)
            return dict(zip(keys, map(_read_argument, node.values), strict=True))
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = ...
    if value is not None and not isinstance(value, bool | int | float | complex | str):
        raise ValueError(f"{ast.unparse(node)} is neither an input nor a constant")
    return value


def _read_index(node: ast.expr) -> int | slice:
    """One part of an index: a whole number, or a slice of whole numbers."""
    ends = [node.lower, node.upper, node.step] if isinstance(node, ast.Slice) else [node]
    try:
        values = [None if end is None else ast.literal_eval(end) for end in ends]
    except ValueError:
        values = [...]
    if not all(type(value) is int or (value is None and isinstance(node, ast.Slice)) for value in values):
        raise ValueError(f"{ast.unparse(node)} is no index of whole numbers")
    return slice(*values) if isinstance(node, ast.Slice) else values[0]  # pyright: ignore[reportReturnType]


def with_entries(method: str, call: MethodCall, batch: Mapping[str, BatchTree]) -> MethodCall:
    """A call with the batch entries of its inputs.

    Raises:
        CaseError: an argument is no input.
    """
    entries, keys = nested_entries(batch), key_names(batch)
    for one in _inputs_in((call.positional, call.keywords)):
        if one.name not in entries:
            raise CaseError(
                f"method {method} takes {one.name!r}, which is no input; the batch has {', '.join(entries)}.",
                fix=f"Give an input of the batch, or a constant: a text in quotes, {one.name!r}.",
            )

    def fill(one: Any) -> Any:
        if not isinstance(one, Input):
            return one
        return replace(one, entries=entries[one.name], keys=keys.intersection(_names(entries[one.name])))

    keywords = {name: _map_argument(one, fill) for name, one in call.keywords.items()}
    positional = tuple(_map_argument(one, fill) for one in call.positional)
    return replace(call, positional=positional, keywords=keywords)


Mapped = TypeVar("Mapped")


def _map_tree(tree: BatchTree, function: Callable[[str], Mapped]) -> Any:
    """A nested input with every name replaced."""
    return _map_argument(tree, lambda one: function(one) if isinstance(one, str) else one)


def _map_argument(argument: Any, function: Callable[[Any], Any]) -> Any:
    """An argument with a function applied to what is no tuple, list or dict."""
    if isinstance(argument, Mapping):
        return {name: _map_argument(one, function) for name, one in argument.items()}
    if isinstance(argument, tuple | list):
        return type(argument)(_map_argument(one, function) for one in argument)
    return function(argument)


def _inputs_in(argument: Any) -> Iterator[Input]:
    if isinstance(argument, Input):
        yield argument
    elif isinstance(argument, Mapping):
        for one in argument.values():
            yield from _inputs_in(one)
    elif isinstance(argument, tuple | list):
        for one in argument:
            yield from _inputs_in(one)


def _names(entries: BatchTree) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    elif entries is not None:
        for one in entries.values() if isinstance(entries, Mapping) else entries:
            yield from _names(one)


def _index_text(part: int | slice) -> str:
    if isinstance(part, int):
        return str(part)
    ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
    return ":".join(ends if part.step is None else [*ends, str(part.step)])


def _argument_text(argument: Any) -> str:
    match argument:
        case Input():
            return (
                f"{argument.name}[{', '.join(map(_index_text, argument.index))}]" if argument.index else argument.name
            )
        case Mapping():
            return "{" + ", ".join(f"{name!r}: {_argument_text(one)}" for name, one in argument.items()) + "}"
        case tuple():
            return f"({', '.join(map(_argument_text, argument))}{',' if len(argument) == 1 else ''})"
        case list():
            return f"[{', '.join(map(_argument_text, argument))}]"
    return repr(argument)
