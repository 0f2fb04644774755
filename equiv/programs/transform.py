"""A program again, with its random draws as inputs, and, lifted, with every float a float64.

Nothing of a library is patched and no source is edited: the jaxpr is evaluated under a trace, equation by equation.
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

from equiv.errors import PortError
from equiv.programs import draws as drawing
from equiv.programs.draws import count
from equiv.programs.jaxpr import CALLS, inner, opened, scan_parts
from equiv.programs.program import Program

NARROW = ("float32", "float16", "bfloat16")


DTYPE_PARAMETERS = ("new_dtype", "dtype", "preferred_element_type", "out_dtype", "accumulator_dtype")


LOOPS = ("scan", "while", "cond")


def rewrite(program: Program, lifted: bool) -> Program:
    """The program with `draw/i` inputs in place of keys and random state.

    Call it inside `jax.enable_x64(True)` for a lifted program, which must have been traced there too.

    Raises:
        PortError: the result still depends on a key: something draws in a way that cannot be replayed.
    """
    program = prune(program)
    found, indices = drawing.find(program.jaxpr)
    if not found and not lifted:
        return _without_random(program)
    jaxpr, consts = opened(program.jaxpr)

    def run(arrays: list[Any], bits: list[Any]) -> list[Any]:
        return evaluate(jaxpr, consts, arrays, Source([bits[index] for index in indices]), lifted)

    structs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
    bits = [jax.ShapeDtypeStruct(draw.shape, f"uint{draw.bit_width}") for draw in found]
    inputs = (*program.inputs, *(f"draw/{index}" for index in range(len(found))))
    retraced = jax.make_jaxpr(run)(structs, bits)
    if lifted and "complex64" in str(retraced):
        raise PortError(
            f"{program.name}: complex64 values stay narrow when lifted, so float64 would judge them wrongly."
        )
    return _without_random(prune(replace(program, jaxpr=retraced, inputs=inputs, draws=tuple(found))))


@dataclass
class Source:
    """Where random bits come from: given, in program order, or, where none are given, drawn and kept."""

    given: list[Any] | None = None
    kept: list[Any] = field(default_factory=list)

    def take(self, eqn: Any, ins: list[Any]) -> Any:
        """The bits of one drawing equation."""
        if self.given is not None:
            return self.given.pop(0)
        self.kept.append(eqn.primitive.bind(*ins, **eqn.params))
        return self.kept[-1]

    def split(self, number: int) -> list[Any] | None:
        """The next `number` given bits, for a body that draws."""
        return None if self.given is None else [self.given.pop(0) for _ in range(number)]


def tap(program: Program) -> Program:
    """What a program draws with its own keys: outputs `draw/0`, ... and its next random state."""
    jaxpr, consts = opened(program.jaxpr)
    number = count(jaxpr)
    kept = [name.startswith("random/") for name in program.outputs]

    def run(*arrays: Any) -> list[Any]:
        source = Source()
        outs = evaluate(jaxpr, consts, arrays, source, False)
        return [*source.kept, *(out for out, keep in zip(outs, kept, strict=True) if keep)]

    retraced = jax.make_jaxpr(run)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars))
    names = (*(f"draw/{i}" for i in range(number)), *(n for n, k in zip(program.outputs, kept, strict=True) if k))
    return replace(program, name=f"draws of {program.name}", jaxpr=retraced, outputs=names)


def prune(program: Program) -> Program:
    """Without outputs of random state, dead equations, and the random inputs that nothing depends on."""
    return select(program, tuple(name for name in program.outputs if not name.startswith("random/")))


def select(program: Program, outputs: tuple[str, ...]) -> Program:
    """Some outputs of a program, without dead equations and the random inputs that nothing depends on."""
    keep = [name in outputs for name in program.outputs]
    jaxpr, consts = opened(program.jaxpr)
    wanted = [not is_random(name) for name in program.inputs]
    pruned, used = partial_eval.dce_jaxpr(jaxpr, keep, wanted)
    closed = core.ClosedJaxpr(pruned, consts) if len(pruned.constvars) == len(consts) else pruned
    inputs = tuple(name for name, use in zip(program.inputs, used, strict=True) if use)
    return replace(program, jaxpr=closed, inputs=inputs, outputs=outputs)


def is_random(name: str) -> bool:
    """Whether an input is a key or the library's own random state."""
    return name == "key" or name.startswith("random/")


def _without_random(program: Program) -> Program:
    if left := [name for name in program.inputs if is_random(name)]:
        users = _users(program, left[0])
        raise PortError(
            f"{program.name}: the result depends on {left[0]} other than through random bits ({users}), "
            "so its randomness cannot be replayed. Draw with jax.random functions that are made of random bits."
        )
    return program


def _users(program: Program, name: str) -> str:
    jaxpr, _ = opened(program.jaxpr)
    variable = jaxpr.invars[program.inputs.index(name)]
    return ", ".join(sorted({eqn.primitive.name for eqn in jaxpr.eqns if variable in eqn.invars})) or "an output"


def evaluate(jaxpr: Any, consts: Sequence[Any], arrays: Sequence[Any], bits: Source, lifted: bool) -> list[Any]:
    """Evaluate a jaxpr under the current trace, taking every draw from `bits`."""
    up = _up if lifted else (lambda value: value)
    known = _constant if lifted else (lambda value: value)
    values = dict(zip(jaxpr.constvars, map(known, consts), strict=True))
    values.update(zip(jaxpr.invars, arrays, strict=True))

    def read(atom: Any) -> Any:
        return known(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        info = eqn.source_info
        with user_context(info.traceback, name_stack=current_name_stack() + info.name_stack):  # keeps file and line
            outs = _equation(eqn, [read(atom) for atom in eqn.invars], bits, lifted)
        values.update(zip(eqn.outvars, map(up, outs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(eqn: Any, ins: list[Any], bits: Source, lifted: bool) -> Sequence[Any]:
    name = eqn.primitive.name
    if name == "random_bits":
        return [bits.take(eqn, ins)]
    if name in CALLS:
        body, consts = opened(eqn.params[CALLS[name]])
        return evaluate(body, consts, ins[len(ins) - len(body.invars) :], bits, lifted)
    if name in LOOPS and (lifted or any(map(count, inner(eqn)))):
        return {"scan": _scan, "while": _while, "cond": _cond}[name](eqn, ins, bits, lifted)
    if lifted and name == "reduce_precision":
        return [ins[0]]
    params = _lifted_params(eqn, ins) if lifted else eqn.params
    if lifted and name == "bitcast_convert_type":
        # Bits mean what they meant at the width that was traced.
        params = eqn.params
        ins = [jnp.asarray(value, atom.aval.dtype) for value, atom in zip(ins, eqn.invars, strict=True)]
    outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
    return outs if eqn.primitive.multiple_results else [outs]


def _scan(eqn: Any, ins: list[Any], bits: Source, lifted: bool) -> Sequence[Any]:
    params = eqn.params
    body, consts = opened(params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    carries, stacks = carried - fixed, len(body.outvars) - (carried - fixed)

    def step(carry: tuple[Any, ...], slices: tuple[list[Any], list[Any] | None]) -> tuple[Any, Any]:
        source = Source(None if slices[1] is None else list(slices[1]))
        outs = evaluate(body, consts, [*ins[:fixed], *carry, *slices[0]], source, lifted)
        return tuple(outs[:carries]), (*outs[carries:], *source.kept)

    carry, stacked = jax.lax.scan(
        step,
        tuple(ins[fixed:carried]),
        (ins[carried:], bits.split(count(body))),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    bits.kept += stacked[stacks:]
    return [*carry, *stacked[:stacks]]


def _while(eqn: Any, ins: list[Any], bits: Source, lifted: bool) -> Sequence[Any]:
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, test_consts = opened(params["cond_jaxpr"])
    body, body_consts = opened(params["body_jaxpr"])
    return jax.lax.while_loop(
        lambda carry: evaluate(test, test_consts, [*ins[:for_test], *carry], bits, lifted)[0],
        lambda carry: tuple(evaluate(body, body_consts, [*ins[for_test:for_body], *carry], bits, lifted)),
        tuple(ins[for_body:]),
    )


def _cond(eqn: Any, ins: list[Any], bits: Source, lifted: bool) -> Sequence[Any]:
    if bits.given is None:
        # To keep what every branch draws, all of them run.
        ways = [evaluate(*opened(closed), ins[1:], bits, lifted) for closed in eqn.params["branches"]]
        return jax.lax.switch(ins[0], [lambda *given, way=way: given[way] for way in range(len(ways))], *ways)

    def branch(closed: Any) -> Callable[..., Any]:
        body, consts = opened(closed)
        mine = bits.split(count(body))
        return lambda *operands: tuple(evaluate(body, consts, operands, Source(list(mine or ())), lifted))

    return jax.lax.switch(ins[0], [branch(closed) for closed in eqn.params["branches"]], *ins[1:])


def _up(value: Any) -> Any:
    return jnp.asarray(value, "float64") if str(getattr(value, "dtype", "")) in NARROW else value


def _constant(value: Any) -> Any:
    """A constant that the trace had already rounded: a scalar is the shortest decimal that rounds to it."""
    dtype = getattr(value, "dtype", None)
    if str(dtype) not in NARROW or np.ndim(value):
        return _up(value)
    number = np.asarray(value)
    decimals = (float(f"{float(number):.{digits}g}") for digits in range(1, 18))
    return jnp.asarray(next(one for one in decimals if np.asarray(one, number.dtype) == number), "float64")


def _lifted_params(eqn: Any, ins: list[Any]) -> dict[str, Any]:
    params = dict(eqn.params)
    for key in DTYPE_PARAMETERS:
        if str(params.get(key)) in NARROW:
            params[key] = jnp.dtype("float64")
    if "precision" in params:  # "bfloat16", `DotAlgorithmPreset.BF16_BF16_F32`: float64 operands would be rounded
        params["precision"] = None
    if any(str(getattr(value, "dtype", "")) == "float64" for value in ins):
        for key, value in params.items():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                params[key] = _lifted_jaxpr(value)
    return params


def _lifted_jaxpr(value: Any) -> Any:
    jaxpr, consts = opened(value)
    structs = [
        jax.ShapeDtypeStruct(v.aval.shape, "float64" if str(v.aval.dtype) in NARROW else v.aval.dtype)
        for v in jaxpr.invars
    ]
    closed = jax.make_jaxpr(lambda *arrays: evaluate(jaxpr, consts, arrays, Source([]), True))(*structs)
    return closed if isinstance(value, core.ClosedJaxpr) else closed.jaxpr
