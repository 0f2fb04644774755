"""The batch of a case, where functions of the user give it: called once, then described as text or kept as values."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from equiv.core.batch_spec import KEY_DTYPES, BatchEntry, BatchTree, KeptValues, flatten_batch, nest_batch
from equiv.core.case import Case, Padding
from equiv.errors import CaseError, EquivError, error_summary, user_code_location

RETURN = "Return an array, or a dictionary of names to arrays."


def resolve_batch(case: Case) -> Case:
    """Call the functions that give the batch of a case, or a part of it.

    Of a batch that is one function, the entries that `keep` names have the function's values in every probe, the others
    its shapes, dtypes and bounds. An entry of a batch that is an array, or a function, keeps its values.

    Returns:
        The case, whose batch is text and `KeptValues`.

    Raises:
        CaseError: a function raises or returns something else, or `keep` names what has no values.
    """
    whole = callable(case.batch)
    source = _name(case.batch) if callable(case.batch) else "the batch"
    given = _named_inputs(source, _call(case.batch)) if callable(case.batch) else case.batch
    found = {name: _called(one) for name, one in given.items()}
    arrays = flatten_batch(found)
    for name in case.keep:
        if not any(_is_within(one, name) and not isinstance(array, str | BatchEntry) for one, array in arrays.items()):
            masks = [one.mask for one in case.invariances if isinstance(one, Padding)]
            who = f"padding names the mask {name!r}" if name in masks else f"keep names {name!r}"
            raise CaseError(
                f"{who}, of which there are no values; the batch has {', '.join(arrays)}.",
                fix="Give its values: a function or an array in the batch, or a function for the whole batch.",
            )

    def describe(name: str) -> Any:
        array = arrays[name]
        if isinstance(array, str | KeptValues | BatchEntry):
            return array
        if not whole or any(_is_within(name, kept) for kept in case.keep):
            return _keep(source if whole else f"batch entry {name!r}", name, array, source if whole else "")
        return _array_text(source, name, array)

    return replace(case, batch=nest_batch(found, describe), keep=())


def _is_within(entry: str, name: str) -> bool:
    """Whether a batch entry is the one of this name, or a part of it."""
    return entry == name or entry.startswith(f"{name}/")


def _name(function: Any) -> str:
    known = getattr(function, "import_path", "")
    return known or f"the batch function {getattr(function, '__qualname__', type(function).__name__)}"


def _call(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except EquivError:
        raise
    except (Exception, SystemExit) as error:
        name = _name(function)
        raise CaseError(
            f"{name}: calling it raised {error_summary(error)}.", fix=f"Fix {user_code_location(error, name)}."
        ) from error


def _called(tree: Any) -> Any:
    """An input with its functions called."""
    if isinstance(tree, Mapping):
        return {name: _called(one) for name, one in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(map(_called, tree))
    return _called(_call(tree)) if callable(tree) else tree


def _named_inputs(source: str, returned: Any) -> Mapping[str, BatchTree]:
    """The inputs that a function for the whole batch returned.

    Raises:
        CaseError: it returned something else.
    """
    entries = returned if isinstance(returned, Mapping) else {"x": returned}
    named = {str(name): one for name, one in entries.items()}
    if returned is None or not flatten_batch(named):
        raise CaseError(f"{source}: the batch is {_shown(returned)}.", fix=RETURN)
    return named


def _keep(where: str, name: str, array: Any, source: str) -> KeptValues:
    _check_array(where, name, array)
    if not hasattr(array, "__array__"):
        raise CaseError(
            f"{where}: {name!r} is {array.dtype}{list(array.shape)} without values, so that none can be kept.",
            fix="Return an array with values.",
        )
    if is_key := str(array.dtype) in KEY_DTYPES:
        array = jax.random.key_data(array)
    return KeptValues(np.asarray(array), source, is_key)


def _array_text(source: str, name: str, array: Any) -> str:
    _check_array(source, name, array)
    text = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    if "int" not in str(array.dtype):
        return text
    if not hasattr(array, "__array__"):
        raise CaseError(
            f"{source}: {name!r} is {text} without values, so its upper bound is unknown.",
            fix="Return an array with values.",
        )
    return f"{text}:{int(np.max(np.asarray(array), initial=0)) + 1}"


def _check_array(where: str, name: str, array: Any) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise CaseError(f"{where}: {name!r} is {_shown(array)}.", fix=RETURN)


def _shown(thing: Any) -> str:
    """An object's repr if it is short, else its type."""
    shown = repr(thing)
    return shown if len(shown) < 60 else f"a {type(thing).__name__}"
