"""The programs of a port as its user calls them: native leaves and keys in, alone under `jax.jit`, default options.

What equiv compares is another executable: canonical leaves, replayed draws, all programs of a port in one. A compiler
may be wrong in one of the two. `tests/comparison/test_user_calls.py` holds these programs to be those of `equiv bench`.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from equiv.backends.leaf_table import leaves_by_native_key, to_native_leaves
from equiv.core.output_name import KEY, STEP, TRAINING, InputName, OutputName, ProgramName, carried_output
from equiv.core.packing import assemble_native_leaf
from equiv.programs.carry import CarryLeafParts, map_carry_leaves
from equiv.programs.content import calls_foreign_code
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.jaxpr import count_equations
from equiv.programs.key_reuse import record_bits
from equiv.programs.placement import Placement
from equiv.programs.probes import Probe, add_library_only_leaves
from equiv.programs.trace import flatten_outputs, random_input
from equiv.programs.traced_port import TracedPort
from equiv.programs.train_step import is_typed_key, key_kind, open_key
from equiv.programs.transform import KeyedProgram, remove_dead_equations

NamedOutputs = dict[OutputName, np.ndarray]

Arrays = Sequence[Any]

Runnable = Callable[..., Any]
"""The arrays of a call, in order, to its results, in order."""

USER_SEED = 303
"""Seed of the keys that the calls are given."""


@dataclass(frozen=True)
class CallResults:
    """The results of one call of one program.

    Attributes:
        outputs: canonical name to value; of training with the step on axis 0, which has a size of one.
        given: its key and random state, from which its bits are drawn.
    """

    outputs: NamedOutputs
    given: Mapping[InputName, Any]


@dataclass(frozen=True)
class UserCall:
    """One program of a port as its user calls it, lowered.

    Attributes:
        name: a forward program or `STEP`.
        lowered: to be compiled.
        jaxpr: what was lowered.
        start: probe to the arrays of the first call.
        follow: number of the call, probe and results of the call before to the arrays of the next one; None: one call.
        read: results to outputs by name; random state is left out.
        random: the arrays of a call to its key and random state.
        calls: number of calls on a probe.
        placed: the sharding of each of its arrays on a mesh; empty: it is lowered for one device.
    """

    name: ProgramName
    lowered: Any
    jaxpr: Any
    start: Callable[[Probe], list[Any]]
    read: Callable[[Arrays], NamedOutputs]
    random: Callable[[Arrays], Mapping[InputName, Any]]
    follow: Callable[[int, Probe, Arrays], list[Any]] | None = None
    calls: int = 1
    placed: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Number of equations."""
        return count_equations(self.jaxpr)

    def stream(self, function: Runnable, probe: Probe) -> Iterator[CallResults]:
        """Call it on a probe, as often as the case has train steps, and yield what each call gives.

        Nothing of an earlier call is kept, but what the next one is given.

        Args:
            function: the compiled program, or anything else that takes and returns its arrays.
            probe: its inputs.
        """
        results: Arrays = ()
        for number in range(self.calls):
            arrays = self.follow(number, probe, results) if self.follow and number else self.start(probe)
            given, results = self.random(arrays), list(function(*arrays))
            del arrays
            yield CallResults(self._name(results), given)

    def _name(self, results: Arrays) -> NamedOutputs:
        outputs = self.read(results)
        if self.follow is None:
            return outputs
        return {name.of(TRAINING): array[np.newaxis] for name, array in outputs.items()}

    def evaluate_by_operation(self, *arrays: Any) -> list[Any]:
        """Compute it operation by operation: no compiler sees more than one at a time."""
        return evaluate_eagerly(self.jaxpr, arrays)


CompiledCalls = tuple[tuple[UserCall, Runnable], ...]
"""The programs of one port, each with what it is compiled to."""


def lower_user_calls(
    traced: TracedPort, steps: int, placement: Placement | None = None, calls: bool = True
) -> tuple[UserCall, ...]:
    """Trace and lower what users call: every method, in train mode where there is one, and the train step, if any.

    Args:
        traced: the port.
        steps: number of train steps.
        placement: on a mesh, which is in force; None: they are lowered for one device.
        calls: whether methods are lowered, or the train step alone.
    """
    mode = traced.tracer.modes()[-1]
    methods = [ProgramName(mode, method) for method in traced.tracer.request.methods if calls]
    trained = () if traced.programs.step is None else (_lower_step(traced, steps, placement),)
    return (*(_lower_forward(traced, name, placement) for name in methods), *trained)


def _lower(function: Runnable, structs: Sequence[Any]) -> tuple[Any, Any]:
    # Arguments that are not used stay: then equal texts take equal arguments.
    traced = jax.jit(function, keep_unused=True).trace(*structs)
    return traced.lower(), traced.jaxpr


def _place(structs: Sequence[Any], shardings: Sequence[Any]) -> list[Any]:
    placed = zip(structs, shardings, strict=True)
    return [jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=sharding) for one, sharding in placed]


def _lower_forward(traced: TracedPort, name: ProgramName, placement: Placement | None) -> UserCall:
    tracer, port, table = traced.tracer, traced.port, traced.table
    entries, training = tracer.request.methods[name.method].inputs, name.kind == "train"
    keys = _native_keys(traced)
    returned: list[OutputName] = []
    changed: list[Any] = []

    def call(*arrays: Any) -> list[Any]:
        native = dict(zip(keys, arrays, strict=False))
        key, *inputs = arrays[len(keys) :]
        leaves = {one: native[one] for one in port.leaves}
        outputs, after = port.apply(leaves, name.method, tuple(inputs), training, key)
        named = flatten_outputs(name, outputs)
        returned[:] = named
        changed[:] = [one for one in keys if port.returns_parameters or after[one] is not native[one]]
        return [*map(jax.numpy.asarray, named.values()), *(after[one] for one in changed)]

    structs = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in (port.leaves[key] for key in keys)]
    given = [*structs, tracer.random()[KEY], *(tracer.request.batch[entry] for entry in entries)]
    placed: list[Any] = []
    if placement is not None:
        placed = [
            *map(placement.leaves.__getitem__, keys),
            placement.rest,
            *map(placement.entries.__getitem__, entries),
        ]
    lowered, jaxpr = _lower(call, _place(given, placed) if placed else given)

    def read(results: Arrays) -> NamedOutputs:
        outputs = {one: np.asarray(value) for one, value in zip(returned, results, strict=False)}
        leaves = dict(zip(changed, results[len(returned) :], strict=True))
        held = {
            leaf.name: leaf.to_canonical(np.asarray(leaves[leaf.key])) for leaf in table.leaves if leaf.key in leaves
        }
        return outputs | {OutputName(name, "state", leaf=leaf): array for leaf, array in held.items()}

    def start(probe: Probe) -> list[Any]:
        native = _native_values(traced, probe)
        inputs = [probe.batches[entry][0] for entry in entries]
        return [*(native[key] for key in keys), _call_key(0), *inputs]

    def random(arrays: Arrays) -> Mapping[InputName, Any]:
        state = {random_input(key): array for key, array in zip(keys, arrays, strict=False) if _is_random(traced, key)}
        return {**state, KEY: arrays[len(keys)]}

    return UserCall(name, lowered, jaxpr, start, read, random, placed=tuple(placed))


def _lower_step(traced: TracedPort, steps: int, placement: Placement | None) -> UserCall:
    tracer, port = traced.tracer, traced.port
    entries = tuple(tracer.request.batch)
    native = {key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for key, leaf in port.leaves.items()}
    carry = jax.eval_shape(port.init_training, native, tracer.random()[KEY])
    structs, structure = jax.tree.flatten(carry)
    held = map_carry_leaves(tracer, carry)
    # In the order of names, in which ports agree: two with equal texts are then compiled once.
    order = sorted(range(len(held)), key=lambda index: held[index][0].name)
    place = {index: number for number, index in enumerate(order)}
    structs, held = [structs[index] for index in order], [held[index] for index in order]
    after_names: list[CarryLeafParts] = []
    returned: list[OutputName] = []

    def call(*arrays: Any) -> list[Any]:
        key, *batch = arrays[len(structs) :]
        before = jax.tree.unflatten(structure, [arrays[place[index]] for index in range(len(structs))])
        after, outputs = port.step(before, dict(zip(entries, batch, strict=True)), key)
        named = flatten_outputs(STEP, outputs)
        returned[:] = named
        carried = sorted(zip(map_carry_leaves(tracer, after), jax.tree.leaves(after), strict=True), key=_first_name)
        after_names[:] = [parts for parts, _ in carried]
        return [*(jax.numpy.asarray(array) for _, array in carried), *map(jax.numpy.asarray, named.values())]

    given = [*structs, tracer.random()[KEY], *(tracer.request.batch[entry] for entry in entries)]
    placed: list[Any] = []
    if placement is not None:
        leaves, inputs = (placement.carry[index] for index in order), (placement.entries[entry] for entry in entries)
        placed = [*leaves, placement.rest, *inputs]
    lowered, jaxpr = _lower(call, _place(given, placed) if placed else given)

    def read(results: Arrays) -> NamedOutputs:
        carried = {
            carried_output(STEP, leaf.name): leaf.mapped.to_canonical(np.asarray(open_key(array)))
            for parts, array in zip(after_names, results, strict=False)
            for leaf in parts
            if not leaf.name.is_random
        }
        outputs = zip(returned, results[len(after_names) :], strict=True)
        return carried | {name: np.asarray(value) for name, value in outputs}

    def with_call(number: int, probe: Probe, leaves: list[Any]) -> list[Any]:
        return [*leaves, _call_key(number), *(probe.batches[entry][number] for entry in entries)]

    def start(probe: Probe) -> list[Any]:
        first = zip(_first_carry(traced, probe, held), structs, strict=True)
        return with_call(0, probe, [_as_dtype(array, struct) for array, struct in first])

    def follow(number: int, probe: Probe, results: Arrays) -> list[Any]:
        # By name: what a step returns may be in another order than what it takes, and in another dtype.
        now = {leaf.name: array for parts, array in zip(after_names, results, strict=False) for leaf in parts[:1]}
        leaves = [_as_dtype(now[parts[0].name], struct) for parts, struct in zip(held, structs, strict=True)]
        return with_call(number, probe, leaves)

    def random(arrays: Arrays) -> Mapping[InputName, Any]:
        leaves = zip(held, arrays, strict=False)
        state = {leaf.name: array for parts, array in leaves for leaf in parts if leaf.name.is_random}
        return {**state, KEY: arrays[len(structs)]}

    return UserCall(STEP, lowered, jaxpr, start, read, random, follow, steps, tuple(placed))


def _first_name(carried: tuple[CarryLeafParts, Any]) -> InputName:
    return carried[0][0].name


def _native_keys(traced: TracedPort) -> list[Any]:
    """The native leaves in the order of the layer table, in which ports agree; then those of random state."""
    mapped = list(leaves_by_native_key(traced.table))
    return [*mapped, *(key for key in traced.port.leaves if key not in mapped)]


def _is_random(traced: TracedPort, key: Any) -> bool:
    return traced.port.collections[key] == "random"


def _native_values(traced: TracedPort, probe: Probe) -> dict[Any, Any]:
    variables = add_library_only_leaves(traced.table, probe.variables)
    random = traced.random()
    state = {key: random[random_input(key)] for key in traced.port.leaves if _is_random(traced, key)}
    return {**to_native_leaves(traced.table, variables), **state}


def _first_carry(traced: TracedPort, probe: Probe, held: Sequence[CarryLeafParts]) -> list[Any]:
    begin = traced.programs.begin
    assert begin is not None, "a traced port has its training"
    variables = add_library_only_leaves(traced.table, probe.variables)
    outputs = evaluate_eagerly(begin.jaxpr, [variables[name.leaf] for name in begin.inputs])
    values = {name.as_input: array for name, array in zip(begin.outputs, outputs, strict=True)}
    return [_assemble(parts, {**values, **traced.random()}) for parts in held]


def _assemble(parts: CarryLeafParts, values: Mapping[Any, Any]) -> Any:
    if parts[0].name.is_random:
        return values[parts[0].name]
    return assemble_native_leaf(
        [leaf.mapped for leaf in parts], {leaf.mapped.name: values[leaf.name] for leaf in parts}
    )


def _as_dtype(array: Any, struct: Any) -> Any:
    if is_typed_key(struct) and not is_typed_key(array):
        return jax.random.wrap_key_data(array, impl=key_kind(struct))
    return array if array.dtype == struct.dtype else array.astype(struct.dtype)


def _call_key(number: int) -> Any:
    return jax.random.key(USER_SEED + number)


def derive_bits(keyed: KeyedProgram, given: Sequence[Mapping[InputName, Any]]) -> list[list[np.ndarray]]:
    """The bits that each call of a program draws, from its own key and random state."""
    if not keyed.draws:
        return [[] for _ in given]
    names, avals = keyed.program.inputs, keyed.program.jaxpr.in_avals

    def draw(*random: Any) -> list[Any]:
        known = iter(random)
        # Keys depend on nothing else.
        arrays = [
            next(known) if name.is_random else jax.numpy.zeros(aval.shape, aval.dtype)
            for name, aval in zip(names, avals, strict=True)
        ]
        return record_bits(keyed, arrays)

    arrays = [[one[name] for name in names if name.is_random] for one in given]
    only_bits = remove_dead_equations(jax.make_jaxpr(draw)(*arrays[0]))
    return [evaluate_eagerly(only_bits, one) for one in arrays]


MAX_KEPT = 64
"""Number of compiled programs that are kept, to be used again where another port has the same one."""

_KEPT: OrderedDict[str, Any] = OrderedDict()
_LOCK = threading.Lock()


def compile_user_call(call: UserCall, options: Mapping[str, str | bool] | None = None) -> Runnable:
    """Compile a program, as users do; one whose text and options were compiled before is used again.

    A host function is no part of the text, so that a program that calls one is compiled every time.

    Args:
        call: the program.
        options: for the compiler; None: the default ones, as users have.
    """
    if calls_foreign_code(call.jaxpr):
        return call.lowered.compile(compiler_options=dict(options) if options else None)
    inputs = call.jaxpr.jaxpr.invars
    # Results that are arguments are no part of the text.
    outvars = call.jaxpr.jaxpr.outvars
    forwarded = [inputs.index(out) if not _is_literal(out) and out in inputs else -1 for out in outvars]
    given = list(map(str, call.jaxpr.in_avals))
    described = repr((call.lowered.as_text(), given, forwarded, sorted((options or {}).items())))
    digest = hashlib.sha256(described.encode()).hexdigest()
    with _LOCK:
        if digest in _KEPT:
            _KEPT.move_to_end(digest)
            return _KEPT[digest]
    compiled = call.lowered.compile(compiler_options=dict(options) if options else None)
    with _LOCK:
        _KEPT[digest] = compiled
        while len(_KEPT) > MAX_KEPT:
            _KEPT.popitem(last=False)
    return compiled


def _is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")
