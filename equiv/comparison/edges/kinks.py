"""Derivatives exactly at kinks: what a loss says of them may vanish there, so outputs are differentiated directly.

The mean square of outputs that are zero has no gradient, whatever relu's is at 0. So where two ports have different
kinks, the vector-Jacobian product of a call is compiled too, with a cotangent for its first row alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.backends.build import call_user_code
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Outputs, Sample
from equiv.compat import enable_x64
from equiv.core.output_name import InputName, OutputName, ProgramKind, ProgramName
from equiv.programs.compiled import FAST_COMPILE_OPTIONS, probe_inputs
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr
from equiv.programs.joined_programs import part_inputs
from equiv.programs.probes import Probe
from equiv.programs.program import Program, Programs
from equiv.programs.trace import trace_forward
from equiv.programs.transform import select_outputs

KINKS = frozenset(("abs", "argmax", "argmin", "clamp", "div", "log", "max", "min", "pow", "reduce_max", "reduce_min",
                   "rsqrt", "select_n", "sign", "sort", "sqrt", "top_k"))  # fmt: skip
"""Primitives that have no derivative somewhere, or one that is agreed on."""

Kinks = Counter[tuple[str, tuple[str, ...]]]
"""How often each kink occurs; one with a derivative of its own by what is inside, as relu."""


def differ_in_kinks(ports: Sequence[CompiledPort], method: str) -> bool:
    """Whether the calls of a method have other kinks in one port than in the other, and can be differentiated."""
    calls = [find_call(port.traced.programs, method) for port in ports]
    if any(call is None for call in calls):
        return False
    first, *others = (Counter(_list_kinks(call.jaxpr)) for call in calls if call is not None)
    return any(other != first for other in others)


def find_call(programs: Programs, method: str) -> Program | None:
    """Find a call of a method without draws: of one with draws, replay has opened the functions that have derivatives
    of their own."""
    calls = (part for part in programs.parts if part.name.is_forward and part.name.method == method)
    return next((part for part in calls if not part.draws), None)


def _list_kinks(jaxpr: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for eqn in open_jaxpr(jaxpr)[0].eqns:
        name, bodies = eqn.primitive.name, inner_jaxprs(eqn)
        if name.startswith("custom_"):
            yield name, tuple(one.primitive.name for body in bodies for one in open_jaxpr(body)[0].eqns)
            continue
        if name in KINKS:
            yield name, ()
        for body in bodies:
            yield from _list_kinks(body)


def differentiate_call(compiled: CompiledPort, method: str, probe: Probe) -> Sample:
    """Differentiate the outputs of a call on a probe: every float leaf and input, natively and in float64.

    Args:
        compiled: the port.
        method: of which `find_call` finds a call.
        probe: the probe.

    Returns:
        Gradients, named as those of the method's loss in either mode.

    Raises:
        PortError: the call cannot be differentiated.
    """
    call = find_call(compiled.traced.programs, method)
    assert call is not None, "differ_in_kinks says that there is one"
    port, steps = compiled.traced.port.name, compiled.native.steps

    def gradients(in_float64: bool) -> Outputs:
        programs = replace(compiled.traced.programs, float64=in_float64)
        program = _trace_in_float64(compiled, call) if in_float64 else call
        inputs = part_inputs(program, probe_inputs(programs, compiled.table, steps, probe))
        with enable_x64(in_float64):
            return _call_gradients(program, inputs)

    native = call_user_code(port, "differentiating", partial(gradients, False))
    if compiled.float64 is None:
        return Sample(native, None)
    return Sample(native, call_user_code(port, "differentiating in float64", partial(gradients, True)))


def _trace_in_float64(compiled: CompiledPort, call: Program) -> Program:
    """Trace a call in float64 as it is; that of the float64 run has its functions opened."""
    with enable_x64(True):
        traced = trace_forward(replace(compiled.traced.tracer, float64=True), call.name)
        return select_outputs(traced, tuple(name for name in traced.outputs if name.kind == "output"))


def _call_gradients(call: Program, given: dict[InputName, Any]) -> Outputs:
    inputs = {name: jnp.asarray(given[name]) for name in call.inputs}
    wanted = {name: array for name, array in inputs.items() if jnp.issubdtype(array.dtype, jnp.floating)}

    def outputs_of(varied: dict[InputName, Any]) -> list[Any]:
        results = jaxpr_as_fun(call.jaxpr)(*({**inputs, **varied}[name] for name in call.inputs))
        named = zip(call.outputs, results, strict=True)
        return [one for name, one in named if name.kind == "output" and jnp.issubdtype(one.dtype, jnp.floating)]

    def differentiate(varied: dict[InputName, Any]) -> dict[InputName, Any]:
        results, pull_back = jax.vjp(outputs_of, varied)
        return pull_back([_first_row(one) for one in results])[0]

    compiled = jax.jit(differentiate).lower(wanted).compile(compiler_options=dict(FAST_COMPILE_OPTIONS))
    kinds: tuple[ProgramKind, ...] = ("gradient", "eval gradient")
    return {
        OutputName(ProgramName(kind, call.name.method), "gradient", "" if name.leaf else str(name), name.leaf): (
            np.asarray(array)
        )
        for name, array in jax.device_get(compiled(wanted)).items()
        for kind in kinds
    }


def _first_row(output: Any) -> Any:
    """A cotangent of one for the first element, less for the others of its row, and zero for all other rows."""
    weights = np.zeros(output.shape)
    row = weights[0] if weights.ndim > 1 else weights
    row[...] = np.linspace(1.0, 0.5, max(1, row.size)).reshape(row.shape)
    return jnp.asarray(weights, output.dtype)
