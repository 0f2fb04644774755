"""Without replay: does a port draw anew for every layer and for every step?"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.programs.compiled import QUICK
from equiv.programs.draws import count, find
from equiv.programs.jaxpr import inner, opened
from equiv.programs.program import Program
from equiv.programs.transform import select, tap

STEPS = 2


Pieces = list[tuple[str, np.ndarray]]


def lower_draws(step: Program, random: Callable[[], Mapping[str, Any]]) -> Callable[[], tuple[tuple[str, ...], int]]:
    """The random draws of a train step with the port's own keys, ready to be compiled and run twice in a row.

    Args:
        step: the train step as it was, with its own keys.
        random: gives the port's random state at the start, by input name.

    Returns:
        What gives the pairs of draws that came out alike and must not, and the number of draws looked at.
    """
    if not count(step.jaxpr):
        return lambda: ((), 0)
    tapped = tap(step)
    tapped = select(tapped, tapped.outputs)
    lowered = jax.jit(jaxpr_as_fun(tapped.jaxpr)).lower(*tapped.jaxpr.in_avals)

    def run_twice() -> tuple[tuple[str, ...], int]:
        draw, state = lowered.compile(compiler_options=QUICK), random()
        seen: Pieces = []
        for number in range(STEPS):
            inputs = {**state, "key": jax.random.key(number)}
            outputs = draw(*(inputs.get(name, _zeros(tapped, name)) for name in tapped.inputs))
            named = dict(zip(tapped.outputs, outputs, strict=True))
            state = {name: named.get(name, value) for name, value in state.items()}
            bits = [value for name, value in named.items() if name.startswith("draw/")]
            seen += _pieces(f"step {number}", step, bits)
        return _alike(seen), len(seen)

    return run_twice


def _zeros(program: Program, name: str) -> Any:
    aval = program.jaxpr.in_avals[program.inputs.index(name)]
    # Numpy, where it has the dtype: jax compiles zeros of every shape anew.
    own = jnp.issubdtype(aval.dtype, jax.dtypes.extended)
    return (jnp if own else np).zeros(aval.shape, aval.dtype)


def _pieces(when: str, step: Program, arrays: list[Any]) -> Pieces:
    """Every draw once, apart by layer where a scan runs it."""
    found, indices = find(step.jaxpr)
    scanned = _scanned(step.jaxpr)
    pieces: Pieces = []
    for index, draw in enumerate(found):
        place = indices.index(index)
        array = np.asarray(arrays[place])
        where = f"{when}, draw {index} ({draw.where})"
        if scanned[place]:
            pieces += [(f"{where}, layer {layer}", layer_bits) for layer, layer_bits in enumerate(array)]
        else:
            pieces.append((where, array))
    return pieces


def _scanned(jaxpr: Any, inside: bool = False) -> list[bool]:
    """For every drawing equation in program order: whether a scan runs it."""
    flags = []
    for eqn in opened(jaxpr)[0].eqns:
        if eqn.primitive.name == "random_bits":
            flags.append(inside)
        for body in inner(eqn):
            flags += _scanned(body, inside or eqn.primitive.name == "scan")
    return flags


def _alike(seen: Pieces) -> tuple[str, ...]:
    """Pairs of equal bits among draws of 64 bits or more: by chance less than once in 10**19."""
    known: dict[bytes, str] = {}
    pairs = []
    for place, array in seen:
        content = array.tobytes()
        if len(content) >= 8 and content in known:
            pairs.append(f"{known[content]} = {place}")
        known.setdefault(content, place)
    return tuple(pairs)
