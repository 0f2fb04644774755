"""Key reuse: does a port use a new key for every draw of a call and in every step, when it uses its own keys?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import KEY, STEP, InputName, ProgramName
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.draws import DrawSite, Path
from equiv.programs.jaxpr import read_scan, read_while
from equiv.programs.program import DrawPlace, KeyReuse, Program, iteration_numbers
from equiv.programs.transform import DrawReplay, KeyedProgram

COMPARED_STEPS = 2


@dataclass(frozen=True)
class _UsedKey:
    """A key that is drawn from: its bytes, the place of the draw, that for people, and the branches around it."""

    content: bytes
    place: DrawPlace
    text: str
    branches: tuple[tuple[Path, int], ...]


def lower_keys(
    programs: Sequence[KeyedProgram], random: Callable[[], Mapping[InputName, Any]]
) -> Callable[[], tuple[tuple[KeyReuse, ...], int]]:
    """Lower the keys of a port's draws as the port itself derives them, to be run: one call, or two steps of training.

    Args:
        programs: its programs with their own keys.
        random: gives the port's initial random state, by input name.

    Returns:
        A function that compiles and runs them; it gives the draws that share a key, and the number of keys.
    """
    drawing = {one.program.name: one for one in programs if one.draws}
    if not drawing:
        return lambda: ((), 0)

    def derive(given: Mapping[ProgramName, list[Any]]) -> dict[ProgramName, list[Any]]:
        return {name: record_keys(drawing[name], arrays) for name, arrays in given.items()}

    def advance(arrays: list[Any]) -> list[Any]:
        return jaxpr_as_fun(drawing[STEP].next_state.jaxpr)(*arrays) if STEP in drawing else []

    # What keys do not depend on is an argument of the functions, and not of what is compiled.
    keys = jax.jit(derive).lower({name: _structs(one.program) for name, one in drawing.items()})
    state = jax.jit(advance).lower(_structs(drawing[STEP].next_state) if STEP in drawing else [])

    def run_steps() -> tuple[tuple[KeyReuse, ...], int]:
        derived, after = (one.compile(compiler_options=FAST_COMPILE_OPTIONS) for one in (keys, state))
        given, used = dict(random()), {name: list[_UsedKey]() for name in drawing}
        for step in range(COMPARED_STEPS):
            given[KEY] = jax.random.key(step)
            arrays = derived({name: _inputs(one.program, given) for name, one in drawing.items()})
            for name, one in drawing.items():
                if name == STEP or not step:
                    used[name] += _used_keys(one, arrays[name], step)
            if STEP in drawing:
                outputs = after(_inputs(drawing[STEP].next_state, given))
                names = (name.as_input for name in drawing[STEP].next_state.outputs)
                given |= {name: value for name, value in zip(names, outputs, strict=True) if name is not None}
        found = tuple(pair for name, keys_of in used.items() for pair in _find_reuse(name, keys_of))
        return found, sum(map(len, used.values()))

    return run_steps


def _structs(program: Program) -> list[Any]:
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals]


def _inputs(program: Program, given: Mapping[InputName, Any]) -> list[Any]:
    return [given[name] if name in given else _zeros(program, name) for name in program.inputs]


def _zeros(program: Program, name: InputName) -> Any:
    aval = program.jaxpr.in_avals[program.inputs.index(name)]
    # numpy where it has the dtype: jax compiles `zeros` once for every shape.
    own = jnp.issubdtype(aval.dtype, jax.dtypes.extended)
    return (jnp if own else np).zeros(aval.shape, aval.dtype)


def record_keys(keyed: KeyedProgram, arrays: Sequence[Any]) -> list[Any]:
    """The keys of every draw as numbers, on the axes of loops that change the key, of the keys, and of their words."""
    return _record(_KeyRecorder, keyed, arrays)


def record_bits(keyed: KeyedProgram, arrays: Sequence[Any]) -> list[Any]:
    """The bits of every draw, in the shape of the draw."""
    return _record(_BitRecorder, keyed, arrays)


def _record(kind: "type[_KeyRecorder]", keyed: KeyedProgram, arrays: Sequence[Any]) -> list[Any]:
    first = _first_sites(keyed)
    recorder = kind({}, False, {path: keyed.sites[path] for path in first})
    recorder.run(keyed.program.jaxpr, arrays)
    return [recorder.recorded[path] for path in first]


def _first_sites(keyed: KeyedProgram) -> list[Path]:
    """Where each draw is made first; equations that make it again use its key."""
    first = {site.draw: path for path, site in reversed(tuple(keyed.sites.items()))}
    return [first[index] for index in range(len(keyed.draws))]


@dataclass
class _KeyRecorder(DrawReplay):
    """Evaluation of a program with its own keys that records those from which it draws.

    Attributes:
        sites: the equations whose keys are recorded.
        recorded: path of the equation to the numbers of its keys.
    """

    sites: Mapping[Path, DrawSite] = field(default_factory=dict)
    recorded: dict[Path, Any] = field(default_factory=dict)

    def draw(self, eqn: Any, ins: list[Any]) -> Any:
        if self.path in self.sites:
            self.recorded[self.path] = jax.random.key_data(ins[0])
        return super().draw(eqn, ins)

    def _enter_loop(self) -> "_KeyRecorder | None":
        """A recorder for the body of the current loop; None where nothing is recorded in it."""
        depth = len(self.path)
        inside = {path: site for path, site in self.sites.items() if path[:depth] == self.path}
        changed = {path: replace(site, varies=site.varies[1:]) for path, site in inside.items()}
        return type(self)({}, False, changed) if inside else None

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if (inner := self._enter_loop()) is None:
            return super().scan(eqn, ins)
        loop, path = read_scan(eqn), self.path
        fixed, start, scanned = loop.split(ins)

        def step(carry: tuple[Any, ...], slices: list[Any]) -> tuple[Any, Any]:
            outs = inner.run(loop.body, [*fixed, *carry, *slices], path)
            return tuple(outs[: loop.carries]), (tuple(outs[loop.carries :]), dict(enumerate(inner.recorded.values())))

        carry, (stacked, keys) = jax.lax.scan(step, tuple(start), scanned, length=loop.length, reverse=loop.reverse)
        for place, stack in zip(inner.recorded, keys.values(), strict=True):
            self.recorded[place] = stack if self.sites[place].varies[0] else stack[0]
        return [*carry, *stacked]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if (inner := self._enter_loop()) is not None:
            # All iterations use one key: that of the first.
            loop, path = read_while(eqn), self.path
            for_test, for_body, start = loop.split(ins)
            inner.run(loop.test, [*for_test, *start], (*path, 0))
            inner.run(loop.body, [*for_body, *start], (*path, 1))
            self.recorded |= inner.recorded
        return super().while_loop(eqn, ins)

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        # To record the keys of every branch, all of them run.
        path, branches = self.path, eqn.params["branches"]
        results = [self.run(closed, ins[1:], (*path, number)) for number, closed in enumerate(branches)]
        choices = [lambda *given, index=index: given[index] for index in range(len(results))]
        return jax.lax.switch(ins[0], choices, *results)


@dataclass
class _BitRecorder(_KeyRecorder):
    """Evaluation of a program with its own keys that records the bits that it draws."""

    def draw(self, eqn: Any, ins: list[Any]) -> Any:
        bits = DrawReplay.draw(self, eqn, ins)
        if self.path in self.sites:
            self.recorded[self.path] = bits
        return bits


def _used_keys(keyed: KeyedProgram, arrays: Sequence[Any], step: int) -> Iterator[_UsedKey]:
    """Every key that a program draws from, in the order of its draws."""
    numbers, found = iteration_numbers(keyed.draws), list[_UsedKey]()
    for index, path in enumerate(_first_sites(keyed)):
        draw, array = keyed.draws[index], np.asarray(arrays[index])
        parts = array if draw.loop else [array] * len(numbers[index])
        for iteration, (number, part) in enumerate(zip(numbers[index], parts, strict=True)):
            layer = f", layer {iteration}" if draw.loop else ""
            when = f"step {step}, " if keyed.program.name == STEP else ""
            text = f"{when}draw {index} ({draw.where}){layer}"
            for words in part.reshape(-1, part.shape[-1]):
                found.append(_UsedKey(words.tobytes(), (step, number), text, keyed.sites[path].branches))
    yield from sorted(found, key=lambda one: one.place)


def _find_reuse(program: ProgramName, used: Sequence[_UsedKey]) -> Iterator[KeyReuse]:
    """Pair every key with the draw that used it last; of two branches only one runs."""
    known: dict[bytes, list[_UsedKey]] = {}
    pairs: dict[tuple[DrawPlace, DrawPlace], KeyReuse] = {}
    for one in used:
        earlier = known.setdefault(one.content, [])
        for other in reversed(earlier):
            if not _are_alternatives(one, other):
                text = f"{other.text} = {one.text}"
                pairs.setdefault((other.place, one.place), KeyReuse(program, other.place, one.place, text))
                break
        earlier.append(one)
    yield from pairs.values()


def _are_alternatives(one: _UsedKey, other: _UsedKey) -> bool:
    ours, theirs = dict(one.branches), dict(other.branches)
    return any(theirs.get(place, number) != number for place, number in ours.items())
