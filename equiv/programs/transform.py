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
from equiv.programs.jaxpr import Interpreter, inner_jaxprs, open_jaxpr, read_scan, read_while
from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.program import Program

NARROW_FLOAT_DTYPES = ("float32", "float16", "bfloat16")

DTYPE_PARAMETERS = ("new_dtype", "dtype", "preferred_element_type", "out_dtype", "accumulator_dtype")


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

    def run(arrays: list[Any], bits: list[Any]) -> list[Any]:
        return _BitReplay(BitSource([bits[index] for index in indices]), float64).run(program.jaxpr, arrays)

    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals]
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
    number = count_draws(program.jaxpr)
    kept = [name.kind == "random" for name in program.outputs]

    def run(*arrays: Any) -> list[Any]:
        source = BitSource()
        outs = _BitReplay(source, float64=False).run(program.jaxpr, arrays)
        return [*source.drawn, *(out for out, keep in zip(outs, kept, strict=True) if keep)]

    structs = (jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals)
    retraced = jax.make_jaxpr(run)(*structs)
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
            "so its randomness cannot be replayed.",
            fix="Use jax.random functions that draw through random_bits.",
        )
    return program


def _users_of_input(program: Program, name: InputName) -> str:
    jaxpr, _ = open_jaxpr(program.jaxpr)
    variable = jaxpr.invars[program.inputs.index(name)]
    return ", ".join(sorted({eqn.primitive.name for eqn in jaxpr.eqns if variable in eqn.invars})) or "an output"


@dataclass
class _BitReplay(Interpreter[Any]):
    """Evaluation under the current trace that takes every draw from `bits`; with `float64`, in float64."""

    bits: BitSource
    float64: bool

    def literal(self, atom: Any) -> Any:
        return self.constant(atom.val)

    def constant(self, array: Any) -> Any:
        return _constant_as_float64(array) if self.float64 else array

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        info = eqn.source_info
        with user_context(info.traceback, name_stack=current_name_stack() + info.name_stack):  # keeps file and line
            outs = super().step(eqn, ins)
        return list(map(_as_float64, outs)) if self.float64 else outs

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name == RANDOM_BITS:
            return [self.bits.take(eqn, ins)]
        if self.float64 and name == "reduce_precision":
            return [ins[0]]
        if self.float64 and name == "bitcast_convert_type":
            # Bits have a meaning only at the width that was traced.
            ins = [jnp.asarray(value, atom.aval.dtype) for value, atom in zip(ins, eqn.invars, strict=True)]
        elif self.float64:
            params = _float64_params(eqn, ins)
        outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
        return outs if eqn.primitive.multiple_results else [outs]

    def _is_kept(self, eqn: Any) -> bool:
        """Whether a loop stays as it is: no draw inside, nothing to convert."""
        return not self.float64 and not any(map(count_draws, inner_jaxprs(eqn)))

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        loop = read_scan(eqn)
        fixed, start, scanned = loop.split(ins)

        def step(carry: tuple[Any, ...], slices: tuple[list[Any], list[Any] | None]) -> tuple[Any, Any]:
            source = BitSource(None if slices[1] is None else list(slices[1]))
            outs = _BitReplay(source, self.float64).run(loop.body, [*fixed, *carry, *slices[0]])
            return tuple(outs[: loop.carries]), (*outs[loop.carries :], *source.drawn)

        carry, stacked = jax.lax.scan(
            step,
            tuple(start),
            (scanned, self.bits.split(count_draws(loop.body))),
            length=loop.length,
            reverse=loop.reverse,
            unroll=eqn.params["unroll"],
        )
        stacks = len(eqn.outvars) - loop.carries
        self.bits.drawn += stacked[stacks:]
        return [*carry, *stacked[:stacks]]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        loop = read_while(eqn)
        for_test, for_body, start = loop.split(ins)
        return jax.lax.while_loop(
            lambda carry: self.run(loop.test, [*for_test, *carry])[0],
            lambda carry: tuple(self.run(loop.body, [*for_body, *carry])),
            tuple(start),
        )

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        branches = eqn.params["branches"]
        if self.bits.given is None:
            # To record what every branch draws, all of them run.
            results = [self.run(closed, ins[1:]) for closed in branches]
            return jax.lax.switch(
                ins[0], [lambda *given, index=index: given[index] for index in range(len(results))], *results
            )

        def branch(closed: Any) -> Callable[..., Any]:
            bits = self.bits.split(count_draws(closed)) or []
            return lambda *operands: tuple(_BitReplay(BitSource(list(bits)), self.float64).run(closed, operands))

        return jax.lax.switch(ins[0], list(map(branch, branches)), *ins[1:])


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
    # `DotAlgorithmPreset.BF16_BF16_F32` would round float64 operands. A precision is about float32 only, and is kept:
    # which operand has it is part of the operation's name.
    if isinstance(params.get("precision"), jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset):
        params["precision"] = None
    if any(str(getattr(value, "dtype", "")) == "float64" for value in ins):
        for key, value in params.items():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                params[key] = _float64_jaxpr(value)
    return params


def _float64_jaxpr(value: Any) -> Any:
    jaxpr, _ = open_jaxpr(value)
    structs = [
        jax.ShapeDtypeStruct(v.aval.shape, "float64" if str(v.aval.dtype) in NARROW_FLOAT_DTYPES else v.aval.dtype)
        for v in jaxpr.invars
    ]
    closed = jax.make_jaxpr(lambda *arrays: _BitReplay(BitSource([]), float64=True).run(value, arrays))(*structs)
    return closed if isinstance(value, core.ClosedJaxpr) else closed.jaxpr
