"""Key reuse: does a port draw different bits in every layer and every step when it uses its own keys?"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.core.output_name import KEY, InputName
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.draws import count_draws, find_draws
from equiv.programs.jaxpr import visit_equations
from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.program import Program
from equiv.programs.transform import output_draws, select_outputs

COMPARED_STEPS = 2

DrawnBits = list[tuple[str, np.ndarray]]


def lower_draws(
    step: Program, random: Callable[[], Mapping[InputName, Any]]
) -> Callable[[], tuple[tuple[str, ...], int]]:
    """Lower the random draws of a train step with the port's own keys, to be run for two consecutive steps.

    Args:
        step: the train step as traced, with its own keys.
        random: gives the port's initial random state, by input name.

    Returns:
        A function that compiles and runs them; it gives the pairs of draws with equal bits, and the number of draws.
    """
    if not count_draws(step.jaxpr):
        return lambda: ((), 0)
    tapped = output_draws(step)
    tapped = select_outputs(tapped, tapped.outputs)
    lowered = jax.jit(jaxpr_as_fun(tapped.jaxpr)).lower(*tapped.jaxpr.in_avals)

    def run_twice() -> tuple[tuple[str, ...], int]:
        draw, state = lowered.compile(compiler_options=FAST_COMPILE_OPTIONS), dict(random())
        seen: DrawnBits = []
        for number in range(COMPARED_STEPS):
            inputs = {**state, KEY: jax.random.key(number)}
            outputs = draw(*(inputs.get(name, _zeros(tapped, name)) for name in tapped.inputs))
            named = dict(zip(tapped.outputs, outputs, strict=True))
            state |= {after: value for name, value in named.items() if (after := name.as_input) in state}
            bits = [value for name, value in named.items() if name.kind == "draw"]
            seen += _split_layers(f"step {number}", step, bits)
        return _equal_draws(seen), len(seen)

    return run_twice


def _zeros(program: Program, name: InputName) -> Any:
    aval = program.jaxpr.in_avals[program.inputs.index(name)]
    # numpy where it has the dtype: jax compiles `zeros` once for every shape.
    own = jnp.issubdtype(aval.dtype, jax.dtypes.extended)
    return (jnp if own else np).zeros(aval.shape, aval.dtype)


def _split_layers(when: str, step: Program, arrays: list[Any]) -> DrawnBits:
    """Every draw once; one inside a scan is split by iteration, that is by layer."""
    found, indices = find_draws(step.jaxpr)
    scanned = _runs_in_scan(step.jaxpr)
    pieces: DrawnBits = []
    for index, draw in enumerate(found):
        place = indices.index(index)
        array = np.asarray(arrays[place])
        where = f"{when}, draw {index} ({draw.where})"
        if scanned[place]:
            pieces += [(f"{where}, layer {layer}", layer_bits) for layer, layer_bits in enumerate(array)]
        else:
            pieces.append((where, array))
    return pieces


def _runs_in_scan(jaxpr: Any) -> list[bool]:
    """For every `random_bits` equation in program order: whether it is inside a scan."""
    return [
        any(outer.primitive.name == "scan" for outer in enclosing)
        for enclosing, eqn in visit_equations(jaxpr)
        if eqn.primitive.name == RANDOM_BITS
    ]


def _equal_draws(seen: DrawnBits) -> tuple[str, ...]:
    """Pairs of equal bits among draws of 64 bits or more: by chance less than once in 10**19."""
    known: dict[bytes, str] = {}
    pairs = []
    for place, array in seen:
        content = array.tobytes()
        if len(content) >= 8 and content in known:
            pairs.append(f"{known[content]} = {place}")
        known.setdefault(content, place)
    return tuple(pairs)
