"""The bound of whole numbers that look rows of a table up, where nothing is said: the rows of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from equiv.backends.base import Port, PortSpec
from equiv.backends.build import build_unmapped, call_user_code, identify_library, port_spec
from equiv.core.batch_spec import flatten_batch, nest_batch
from equiv.core.case import Case
from equiv.errors import CaseError, EquivError
from equiv.programs.jaxpr import Interpreter

SAME_NUMBERS = frozenset(
    {
        *("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose", "slice", "concatenate", "copy"),
        *("convert_element_type", "select_n", "clamp", "stop_gradient", "sharding_constraint"),
    }
)
"""Primitives whose results are numbers of their operands: what is looked up with one is looked up with the other."""


class _Lookups(Interpreter[frozenset[str]]):
    """What stands for a value are the batch entries whose numbers it has.

    Attributes:
        rows: batch entry to the rows of every table that is looked up with it.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {}

    def literal(self, atom: Any) -> frozenset[str]:
        return frozenset()

    def constant(self, array: Any) -> frozenset[str]:
        return frozenset()

    def equation(self, eqn: Any, ins: list[frozenset[str]]) -> Sequence[frozenset[str]]:
        if eqn.primitive.name == "gather":
            (axis, *more) = eqn.params["dimension_numbers"].start_index_map or (0,)
            for name in ins[1] if not more else ():
                self.rows.setdefault(name, []).append(int(eqn.invars[0].aval.shape[axis]))
        same = frozenset[str]().union(*ins) if eqn.primitive.name in SAME_NUMBERS else frozenset[str]()
        return [same] * len(eqn.outvars)


def bound_by_tables(case: Case) -> Case:
    """Bound whole numbers of a batch that has no bound by the rows of the smallest table that is looked up with them.

    Args:
        case: its batch is resolved.

    Returns:
        The case; an entry without a table is left without a bound.

    Raises:
        CaseError: the batch or a method of the case is invalid, or no model that could be called has a table.
    """
    request, entries = port_spec(case, need_bounds=False)
    open_entries = {name: entry for name, entry in entries.items() if entry.is_unbounded}
    if not open_entries:
        return case
    rows: dict[str, int] = {}
    problems: list[EquivError] = []
    for name in case.models:
        try:
            found = call_user_code(name, "tracing", partial(_look_up, _build(case, name, request), request))
        except EquivError as error:
            problems.append(error)
            continue
        for entry, sizes in found.items():
            rows[entry] = min(*sizes, rows.get(entry, sizes[0]))
    for entry, kind in open_entries.items() if problems and not rows else ():
        raise CaseError(
            f"batch entry {entry!r}: {str(kind)!r} has no upper bound, and no table is looked up with it: "
            f"{problems[0]}",
            fix=f'Or write e.g. "{kind}:10".',
        )
    found = {name: entry for name, entry in open_entries.items() if name in rows}
    bounded = {name: replace(entry, bound=rows[name], by_table=True) for name, entry in found.items()}
    arrays = flatten_batch(case.inputs)
    return replace(case, batch=nest_batch(case.inputs, lambda name: bounded.get(name, arrays[name])))


def _build(case: Case, name: str, request: PortSpec) -> Port:
    builder = case.models[name]
    return build_unmapped(name, builder, identify_library(name, builder).name, request)


def _look_up(port: Port, request: PortSpec) -> Mapping[str, Sequence[int]]:
    walk = _Lookups()
    for method, call in request.methods.items():
        structs = [request.batch[name] for name in call.inputs]
        leaves, key = dict(port.leaves), jax.eval_shape(lambda: jax.random.key(0))

        def run(leaves: Any, key: Any, *inputs: Any, method: str = method) -> Any:
            return port.apply(leaves, method, inputs, False, key)[0]

        jaxpr = jax.make_jaxpr(run)(leaves, key, *structs)
        others = len(jaxpr.in_avals) - len(structs)
        walk.run(jaxpr, [*[frozenset[str]()] * others, *(frozenset({name}) for name in call.inputs)])
    return walk.rows
