"""Rewrites of programs: random draws become inputs, and, on request, every float becomes float64.

No library is patched and no source is edited: the jaxpr is evaluated under a new trace, equation by equation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.source_info_util import current_name_stack, user_context
from jax.interpreters import partial_eval

from equiv.core.output_name import InputName, OutputName, draw_input
from equiv.errors import PortError
from equiv.programs import draws as drawing
from equiv.programs.draws import count_draws
from equiv.programs.jaxpr import CALL_PRIMITIVES, inner_jaxprs, open_jaxpr, scan_operand_bounds
from equiv.programs.program import Program

NARROW_FLOAT_DTYPES = ("float32", "float16", "bfloat16")

DTYPE_PARAMETERS = ("new_dtype", "dtype", "preferred_element_type", "out_dtype", "accumulator_dtype")

LOOP_PRIMITIVES = ("scan", "while", "cond")


def make_draws_inputs(program: Program, float64: bool) -> Program:
    """Replace keys and random state by `draw/i` inputs; with `float64`, every float by a float64.

    Call it inside `jax.enable_x64(True)` for a float64 program, which must have been traced there too.

    Raises:
        PortError: the result still depends on a key, because something draws other than by `random_bits`; or the
            program has complex64 values, which have no float64 counterpart here.
    """
    program = drop_random_outputs(program)
    found, indices = drawing.find_draws(program.jaxpr)
    if not found and not float64:
        return _check_no_random_input(program)
    jaxpr, consts = open_jaxpr(program.jaxpr)

    def run(arrays: list[Any], bits: list[Any]) -> list[Any]:
        return evaluate_with_bits(jaxpr, consts, arrays, BitSource([bits[index] for index in indices]), float64)

    structs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
    bits = [jax.ShapeDtypeStruct(draw.shape, f"uint{draw.bit_width}") for draw in found]
    inputs = (*program.inputs, *map(draw_input, range(len(found))))
    retraced = jax.make_jaxpr(run)(structs, bits)
    if float64 and "complex64" in str(retraced):
        raise PortError(
            f"{program.name}: complex64 values are not converted, so a float64 run would be less precise than it says."
        )
    return _check_no_random_input(
        drop_random_outputs(replace(program, jaxpr=retraced, inputs=inputs, draws=tuple(found)))
    )


@dataclass
class BitSource:
    """Where random bits come from: `given`, in program order; if that is None they are drawn and recorded."""

    given: list[Any] | None = None
    drawn: list[Any] = field(default_factory=list)

    def take(self, eqn: Any, ins: list[Any]) -> Any:
        """Return the bits of one `random_bits` equation."""
        if self.given is not None:
            return self.given.pop(0)
        self.drawn.append(eqn.primitive.bind(*ins, **eqn.params))
        return self.drawn[-1]

    def split(self, number: int) -> list[Any] | None:
        """Take the next `number` given draws, for a body that draws."""
        return None if self.given is None else [self.given.pop(0) for _ in range(number)]


def output_draws(program: Program) -> Program:
    """Return a program that outputs what it draws with its own keys, as `draw/0`, ..., and its next random state."""
    jaxpr, consts = open_jaxpr(program.jaxpr)
    number = count_draws(jaxpr)
    kept = [name.kind == "random" for name in program.outputs]

    def run(*arrays: Any) -> list[Any]:
        source = BitSource()
        outs = evaluate_with_bits(jaxpr, consts, arrays, source, False)
        return [*source.drawn, *(out for out, keep in zip(outs, kept, strict=True) if keep)]

    retraced = jax.make_jaxpr(run)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars))
    drawn = (OutputName(program.name, "draw", str(index)) for index in range(number))
    names = (*drawn, *(name for name, keep in zip(program.outputs, kept, strict=True) if keep))
    return replace(program, jaxpr=retraced, outputs=names)


def drop_random_outputs(program: Program) -> Program:
    """Remove outputs of random state, dead equations, and random inputs that nothing depends on."""
    return select_outputs(program, tuple(name for name in program.outputs if name.kind != "random"))


def select_outputs(program: Program, outputs: tuple[OutputName, ...]) -> Program:
    """Keep some outputs of a program; remove dead equations and random inputs that nothing depends on."""
    keep = [name in outputs for name in program.outputs]
    jaxpr, consts = open_jaxpr(program.jaxpr)
    wanted = [not name.is_random for name in program.inputs]
    pruned, used = partial_eval.dce_jaxpr(jaxpr, keep, wanted)
    closed = core.ClosedJaxpr(pruned, consts) if len(pruned.constvars) == len(consts) else pruned
    inputs = tuple(name for name, use in zip(program.inputs, used, strict=True) if use)
    return replace(program, jaxpr=closed, inputs=inputs, outputs=outputs)


def _check_no_random_input(program: Program) -> Program:
    if left := [name for name in program.inputs if name.is_random]:
        users = _users_of_input(program, left[0])
        raise PortError(
            f"{program.name}: the result depends on {left[0]} other than through random bits ({users}), "
            "so its randomness cannot be replayed. Use jax.random functions that draw through random_bits."
        )
    return program


def _users_of_input(program: Program, name: InputName) -> str:
    jaxpr, _ = open_jaxpr(program.jaxpr)
    variable = jaxpr.invars[program.inputs.index(name)]
    return ", ".join(sorted({eqn.primitive.name for eqn in jaxpr.eqns if variable in eqn.invars})) or "an output"


def evaluate_with_bits(
    jaxpr: Any, consts: Sequence[Any], arrays: Sequence[Any], bits: BitSource, float64: bool
) -> list[Any]:
    """Evaluate a jaxpr under the current trace, taking every draw from `bits`; with `float64`, in float64."""
    up = _as_float64 if float64 else (lambda value: value)
    known = _constant_as_float64 if float64 else (lambda value: value)
    values = dict(zip(jaxpr.constvars, map(known, consts), strict=True))
    values.update(zip(jaxpr.invars, arrays, strict=True))

    def read(atom: Any) -> Any:
        return known(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        info = eqn.source_info
        with user_context(info.traceback, name_stack=current_name_stack() + info.name_stack):  # keeps file and line
            outs = _rewrite_equation(eqn, [read(atom) for atom in eqn.invars], bits, float64)
        values.update(zip(eqn.outvars, map(up, outs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _rewrite_equation(eqn: Any, ins: list[Any], bits: BitSource, float64: bool) -> Sequence[Any]:
    name = eqn.primitive.name
    if name == "random_bits":
        return [bits.take(eqn, ins)]
    if name in CALL_PRIMITIVES:
        body, consts = open_jaxpr(eqn.params[CALL_PRIMITIVES[name]])
        return evaluate_with_bits(body, consts, ins[len(ins) - len(body.invars) :], bits, float64)
    if name in LOOP_PRIMITIVES and (float64 or any(map(count_draws, inner_jaxprs(eqn)))):
        return {"scan": _rewrite_scan, "while": _rewrite_while, "cond": _rewrite_cond}[name](eqn, ins, bits, float64)
    if float64 and name == "reduce_precision":
        return [ins[0]]
    params = _float64_params(eqn, ins) if float64 else eqn.params
    if float64 and name == "bitcast_convert_type":
        # Bits have a meaning only at the width that was traced.
        params = eqn.params
        ins = [jnp.asarray(value, atom.aval.dtype) for value, atom in zip(ins, eqn.invars, strict=True)]
    outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
    return outs if eqn.primitive.multiple_results else [outs]


def _rewrite_scan(eqn: Any, ins: list[Any], bits: BitSource, float64: bool) -> Sequence[Any]:
    params = eqn.params
    body, consts = open_jaxpr(params["jaxpr"])
    fixed, carried = scan_operand_bounds(eqn)
    carries, stacks = carried - fixed, len(body.outvars) - (carried - fixed)

    def step(carry: tuple[Any, ...], slices: tuple[list[Any], list[Any] | None]) -> tuple[Any, Any]:
        source = BitSource(None if slices[1] is None else list(slices[1]))
        outs = evaluate_with_bits(body, consts, [*ins[:fixed], *carry, *slices[0]], source, float64)
        return tuple(outs[:carries]), (*outs[carries:], *source.drawn)

    carry, stacked = jax.lax.scan(
        step,
        tuple(ins[fixed:carried]),
        (ins[carried:], bits.split(count_draws(body))),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    bits.drawn += stacked[stacks:]
    return [*carry, *stacked[:stacks]]


def _rewrite_while(eqn: Any, ins: list[Any], bits: BitSource, float64: bool) -> Sequence[Any]:
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, test_consts = open_jaxpr(params["cond_jaxpr"])
    body, body_consts = open_jaxpr(params["body_jaxpr"])
    return jax.lax.while_loop(
        lambda carry: evaluate_with_bits(test, test_consts, [*ins[:for_test], *carry], bits, float64)[0],
        lambda carry: tuple(evaluate_with_bits(body, body_consts, [*ins[for_test:for_body], *carry], bits, float64)),
        tuple(ins[for_body:]),
    )


def _rewrite_cond(eqn: Any, ins: list[Any], bits: BitSource, float64: bool) -> Sequence[Any]:
    if bits.given is None:
        # To record what every branch draws, all of them run.
        results = [evaluate_with_bits(*open_jaxpr(closed), ins[1:], bits, float64) for closed in eqn.params["branches"]]
        return jax.lax.switch(
            ins[0], [lambda *given, index=index: given[index] for index in range(len(results))], *results
        )

    def branch(closed: Any) -> Callable[..., Any]:
        body, consts = open_jaxpr(closed)
        mine = bits.split(count_draws(body))
        return lambda *operands: tuple(evaluate_with_bits(body, consts, operands, BitSource(list(mine or ())), float64))

    return jax.lax.switch(ins[0], [branch(closed) for closed in eqn.params["branches"]], *ins[1:])


def _as_float64(value: Any) -> Any:
    return jnp.asarray(value, "float64") if str(getattr(value, "dtype", "")) in NARROW_FLOAT_DTYPES else value


def _constant_as_float64(value: Any) -> Any:
    """Convert a constant that the trace has rounded: a scalar becomes the shortest decimal that rounds to it."""
    dtype = getattr(value, "dtype", None)
    if str(dtype) not in NARROW_FLOAT_DTYPES or np.ndim(value):
        return _as_float64(value)
    number = np.asarray(value)
    decimals = (float(f"{float(number):.{digits}g}") for digits in range(1, 18))
    return jnp.asarray(next(one for one in decimals if np.asarray(one, number.dtype) == number), "float64")


def _float64_params(eqn: Any, ins: list[Any]) -> dict[str, Any]:
    params = dict(eqn.params)
    for key in DTYPE_PARAMETERS:
        if str(params.get(key)) in NARROW_FLOAT_DTYPES:
            params[key] = jnp.dtype("float64")
    if "precision" in params:  # "bfloat16", `DotAlgorithmPreset.BF16_BF16_F32`: float64 operands would be rounded
        params["precision"] = None
    if any(str(getattr(value, "dtype", "")) == "float64" for value in ins):
        for key, value in params.items():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                params[key] = _float64_jaxpr(value)
    return params


def _float64_jaxpr(value: Any) -> Any:
    jaxpr, consts = open_jaxpr(value)
    structs = [
        jax.ShapeDtypeStruct(v.aval.shape, "float64" if str(v.aval.dtype) in NARROW_FLOAT_DTYPES else v.aval.dtype)
        for v in jaxpr.invars
    ]
    closed = jax.make_jaxpr(lambda *arrays: evaluate_with_bits(jaxpr, consts, arrays, BitSource([]), True))(*structs)
    return closed if isinstance(value, core.ClosedJaxpr) else closed.jaxpr
