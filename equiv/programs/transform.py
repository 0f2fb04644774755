"""Rewrites of programs: random draws become inputs, and, on request, every float becomes float64.

No library is patched and no source is edited: the jaxpr is evaluated under a new trace, equation by equation.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jax.extend.source_info_util import current_name_stack, user_context

from equiv.compat import aval_of, bind_equation
from equiv.core.batch_spec import COMPLEX_DTYPES
from equiv.core.output_name import InputName, OutputName, draw_input
from equiv.errors import PortError
from equiv.programs.dead_carries import remove_dead
from equiv.programs.draws import DrawSite, Path, count_draws, find_draws
from equiv.programs.jaxpr import Interpreter, has_user_line, inner_jaxprs, open_jaxpr, read_scan, read_while
from equiv.programs.primitives import ELEMENTWISE, MOVES, RANDOM_BITS, RANDOMNESS, VIEWS
from equiv.programs.program import Draw, Program

NARROW_FLOAT_DTYPES = ("float32", "float16", "bfloat16")

DOUBLE_DTYPES = {**dict.fromkeys(NARROW_FLOAT_DTYPES, "float64"), "complex64": "complex128"}
"""Each narrower dtype to the one that it has in a float64 program."""

WIDEST = 64
"""Bits of the widest draw: only programs traced in float64 have it."""

DTYPE_PARAMETERS = (
    "new_dtype", "dtype", "preferred_element_type", "out_dtype", "accumulator_dtype", "input_dtype"
)  # fmt: skip


@dataclass(frozen=True)
class KeyedProgram:
    """A program as traced, with its own keys, and those of its draws on which an output depends.

    Attributes:
        program: the program, without outputs of random state.
        next_state: the program with nothing but these outputs.
        draws: its draws.
        sites: the equations that make them, by their path.
    """

    program: Program
    next_state: Program
    draws: tuple[Draw, ...] = ()
    sites: Mapping[Path, DrawSite] = field(default_factory=dict)


def make_draws_inputs(program: Program, float64: bool) -> Program:
    """Replace what depends on keys and random state by `draw/i` inputs; with `float64`, every float by a float64.

    Call it inside `jax.enable_x64(True)` for a float64 program, which must have been traced there too.

    Raises:
        PortError: the result still depends on a key, because something draws other than by `random_bits`; or the
            program has complex64 values that stay so.
    """
    return replay_draws(program, float64)[0]


def replay_draws(program: Program, float64: bool = False) -> tuple[Program, KeyedProgram]:
    """Make draws inputs, as `make_draws_inputs` does, and say where the program with its own keys makes them."""
    next_state = select_outputs(program, tuple(name for name in program.outputs if name.kind == "random"))
    program = drop_random_outputs(program)
    # A call that is not opened may still take a key that nothing in it needs.
    if not float64 and not count_draws(program.jaxpr) and not any(name.is_random for name in program.inputs):
        return _check_no_random_input(program), KeyedProgram(program, next_state)
    found, sites = find_draws(program)

    def run(arrays: list[Any], bits: list[Any]) -> list[Any]:
        given = {path: GivenBits(bits[site.draw], site.varies) for path, site in sites.items()}
        return DrawReplay(given, float64).run(program.jaxpr, arrays)

    # A float64 program may still take float32, as what `optax.MultiSteps` adds up.
    double = DOUBLE_DTYPES if float64 else {}
    dtypes = [double.get(str(aval.dtype), aval.dtype) for aval in program.jaxpr.in_avals]
    structs = [
        jax.ShapeDtypeStruct(aval.shape, dtype) for aval, dtype in zip(program.jaxpr.in_avals, dtypes, strict=True)
    ]
    bits = [jax.ShapeDtypeStruct(draw.shape, f"uint{draw.bit_width}") for draw in found]
    inputs = (*program.inputs, *map(draw_input, range(len(found))))
    retraced = jax.make_jaxpr(run)(structs, bits)
    if float64 and "complex64" in str(retraced):
        raise PortError(
            f"{program.name}: complex64 values are not converted, so a float64 run would be less precise than it says."
        )
    optional = tuple(name for name in inputs if name.is_random or name.kind == "draw")
    replayed = _prune(replace(program, jaxpr=retraced, inputs=inputs), program.outputs, optional)
    # A draw on which no output depends is none; where it was inside a call, that shows only now.
    live = [index for index in range(len(found)) if draw_input(index) in replayed.inputs]
    number = {draw_input(index): draw_input(place) for place, index in enumerate(live)}
    draws = tuple(found[index] for index in live)
    renamed = tuple(number.get(name, name) for name in replayed.inputs)
    keyed = KeyedProgram(
        program,
        next_state,
        draws,
        {path: replace(site, draw=live.index(site.draw)) for path, site in sites.items() if site.draw in live},
    )
    return _check_no_random_input(replace(replayed, inputs=renamed, draws=draws)), keyed


def drop_random_outputs(program: Program) -> Program:
    """Remove outputs of random state, dead equations, and random inputs that nothing depends on."""
    return select_outputs(program, tuple(name for name in program.outputs if name.kind != "random"))


def select_outputs(program: Program, outputs: tuple[OutputName, ...], every_input: bool = True) -> Program:
    """Keep some outputs of a program; remove dead equations and random inputs that nothing depends on.

    Args:
        program: the program.
        outputs: those that are kept.
        every_input: keep the inputs that are not random though nothing depends on them.
    """
    optional = tuple(name for name in program.inputs if name.is_random or not every_input)
    return _prune(program, outputs, optional)


def _prune(program: Program, outputs: tuple[OutputName, ...], optional: tuple[InputName, ...]) -> Program:
    """Keep some outputs; remove dead equations, and those of the optional inputs that nothing depends on."""
    kept, may_go = set(outputs), set(optional)
    keep = [name in kept for name in program.outputs]
    closed, used = _remove_dead(program.jaxpr, keep, [name not in may_go for name in program.inputs])
    inputs = tuple(name for name, use in zip(program.inputs, used, strict=True) if use)
    return replace(program, jaxpr=closed, inputs=inputs, outputs=outputs)


def _remove_dead(closed: Any, keep: list[bool], wanted: list[bool]) -> tuple[Any, list[bool]]:
    """Remove dead equations: the jaxpr, and which inputs are left; those that are `wanted` stay in any case."""
    jaxpr, consts = open_jaxpr(closed)
    pruned, used = remove_dead(jaxpr, keep, wanted)
    return (core.ClosedJaxpr(pruned, consts) if len(pruned.constvars) == len(consts) else pruned), used


def remove_dead_equations(closed: Any) -> Any:
    """Remove the equations of a jaxpr on which no output depends; its inputs stay."""
    return _remove_dead(closed, [True] * len(closed.out_avals), [True] * len(closed.in_avals))[0]


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


@dataclass(frozen=True)
class GivenBits:
    """Bits for one `random_bits` equation.

    Attributes:
        bits: those of all iterations of the enclosing loops, or of a loop's current one inside its body.
        varies: for each loop around that, outermost first, whether its iterations have different bits on axis 0.
    """

    bits: Any
    varies: tuple[bool, ...]


@dataclass
class DrawReplay(Interpreter[Any]):
    """Evaluation under the current trace that takes every draw from `given`; with `float64`, in float64.

    What is computed from constant keys alone is computed now, so that a program has the keys from which it draws.
    """

    given: Mapping[Path, GivenBits]
    float64: bool

    def literal(self, atom: Any) -> Any:
        """A literal itself."""
        return self.constant(atom.val)

    def constant(self, array: Any) -> Any:
        """A constant itself, in float64 the number that it was before the trace rounded it."""
        return constant_as_float64(array) if self.float64 else array

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """Evaluate one equation of any kind, under its own source line."""
        info = eqn.source_info
        # What jax compiled for itself, as relu, has no line of the user's: there that of the call is kept.
        line = next((one for one in (eqn, *reversed(self.calls)) if has_user_line(one)), eqn).source_info.traceback
        with user_context(line, name_stack=current_name_stack() + info.name_stack):  # keeps file and line
            outs = super().step(eqn, ins)
        return list(map(as_float64, outs)) if self.float64 else outs

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """Evaluate an equation that is no call."""
        name, params = eqn.primitive.name, eqn.params
        if name == RANDOM_BITS:
            return [self.draw(eqn, ins)]
        if self.float64 and name == "reduce_precision":
            return [ins[0]]
        if self.float64 and name == "bitcast_convert_type":
            # Bits have a meaning only at the width that was traced.
            ins = [jnp.asarray(value, atom.aval.dtype) for value, atom in zip(ins, eqn.invars, strict=True)]
        elif self.float64:
            params = float64_params(eqn, ins)
        with jax.ensure_compile_time_eval() if _makes_constant_keys(eqn, ins) else nullcontext():
            return bind_equation(eqn, ins, params)

    def draw(self, eqn: Any, ins: list[Any]) -> Any:
        """The bits of one `random_bits` equation: those given, or, of a constant key, its own."""
        if self.path in self.given:
            return self.given[self.path].bits
        params = eqn.params
        if not self.float64 or params["bit_width"] != WIDEST:
            return bind_equation(eqn, ins)[0]
        # The program in its own precision draws half as many bits: other ones, and so other numbers.
        narrow = bind_equation(eqn, ins, {**params, "bit_width": WIDEST // 2})[0].astype(f"uint{WIDEST}")
        return (narrow << np.uint64(WIDEST // 2)) | narrow

    def _is_kept(self, eqn: Any) -> bool:
        """Whether a loop stays as it is: no draw inside, nothing to convert."""
        return not self.float64 and not any(map(count_draws, inner_jaxprs(eqn)))

    def _inside(self, path: Path) -> dict[Path, GivenBits]:
        """The bits for equations inside a loop."""
        return {place: one for place, one in self.given.items() if place[: len(path)] == path}

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """Evaluate a `scan`; bits that differ between iterations are scanned too."""
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        loop, path = read_scan(eqn), self.path
        fixed, start, scanned = loop.split(ins)
        given = self._inside(path)
        changing = {place: one.bits for place, one in given.items() if one.varies[0]}

        def step(carry: tuple[Any, ...], slices: tuple[list[Any], list[Any]]) -> tuple[Any, Any]:
            bits = {place: one.bits for place, one in given.items()} | dict(zip(changing, slices[1], strict=True))
            now = {place: GivenBits(bits[place], one.varies[1:]) for place, one in given.items()}
            outs = DrawReplay(now, self.float64).run(loop.body, [*fixed, *carry, *slices[0]], path)
            return tuple(outs[: loop.carries]), tuple(outs[loop.carries :])

        carry, stacked = jax.lax.scan(
            step,
            tuple(start),
            (scanned, list(changing.values())),
            length=loop.length,
            reverse=loop.reverse,
            unroll=eqn.params["unroll"],
        )
        return [*carry, *stacked]

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """Evaluate a `while_loop`; every iteration has the same bits."""
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        loop, path = read_while(eqn), self.path
        for_test, for_body, start = loop.split(ins)
        given = {place: GivenBits(one.bits, one.varies[1:]) for place, one in self._inside(path).items()}
        inner = DrawReplay(given, self.float64)
        test = _close_body(lambda carry: inner.run(loop.test, [*for_test, *carry], (*path, 0)), start)
        body = _close_body(lambda carry: inner.run(loop.body, [*for_body, *carry], (*path, 1)), start)
        return jax.lax.while_loop(lambda carry: test(carry)[0], lambda carry: tuple(body(carry)), tuple(start))

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        """Evaluate a `cond` or `switch`."""
        if self._is_kept(eqn):
            return self.equation(eqn, ins)
        path = self.path

        def branch(number: int, closed: Any) -> Callable[..., Any]:
            return lambda *operands: DrawReplay(self.given, self.float64).run(closed, operands, (*path, number))

        return jax.lax.switch(ins[0], [branch(*pair) for pair in enumerate(eqn.params["branches"])], *ins[1:])


def _close_body(body: Callable[[list[Any]], list[Any]], start: Sequence[Any]) -> Callable[[Sequence[Any]], list[Any]]:
    """Trace a loop body, so that it is given only what it needs: jax keeps every operand of a `while`, keys too."""
    avals = [aval_of(value) for value in start]
    pruned = remove_dead_equations(jax.make_jaxpr(lambda *carry: body(list(carry)))(*avals))
    return lambda carry: core.jaxpr_as_fun(pruned)(*carry)


KEY_ARITHMETIC = RANDOMNESS | ELEMENTWISE | VIEWS | MOVES
"""Primitives that make keys, and that take them from arrays of keys."""

SMALL_CONSTANT = 64
"""Number of elements up to which whole numbers made of constants are computed: raw keys, seeds, what is folded in."""


def _makes_constant_keys(eqn: Any, ins: Sequence[Any]) -> bool:
    """Whether an equation makes keys, or the whole numbers that keys consist of, from constants alone."""
    if eqn.primitive.name not in KEY_ARITHMETIC or not ins or any(isinstance(one, Tracer) for one in ins):
        return False
    return all(
        jnp.issubdtype(var.aval.dtype, jax.dtypes.prng_key)
        or (jnp.issubdtype(var.aval.dtype, np.integer) and var.aval.size <= SMALL_CONSTANT)
        for var in eqn.outvars
    )


def as_float64(value: Any) -> Any:
    """Convert narrower floats to float64, and complex numbers to complex128; other values are returned as they are."""
    double = DOUBLE_DTYPES.get(str(getattr(value, "dtype", "")))
    return value if double is None else jnp.asarray(value, double)


def constant_as_float64(value: Any) -> Any:
    """Convert a constant that the trace has rounded: a scalar becomes the shortest decimal that rounds to it.

    A complex one is made of its two parts by an operation, under the current trace, so that each is a constant.
    """
    dtype = str(getattr(value, "dtype", ""))
    if dtype in COMPLEX_DTYPES:
        return jax.lax.complex(*(_part_as_float64(part) for part in (np.real(value), np.imag(value))))
    if dtype not in DOUBLE_DTYPES or np.ndim(value):
        return as_float64(value)
    return jnp.asarray(_shortest_decimal(np.asarray(value)), "float64")


def _part_as_float64(part: np.ndarray) -> Any:
    exact = _shortest_decimal(part) if part.dtype == "float32" and not np.ndim(part) else part
    return jnp.asarray(exact, "float64")


def _shortest_decimal(number: np.ndarray) -> Any:
    """The shortest decimal that rounds to a number in its dtype; the number itself where it is none."""
    decimals = (float(f"{float(number):.{digits}g}") for digits in range(1, 18))
    with np.errstate(over="ignore"):  # 70000 is no float16
        return next((one for one in decimals if np.asarray(one, number.dtype) == number), number)  # no decimal is NaN


def float64_params(eqn: Any, ins: list[Any]) -> dict[str, Any]:
    """The parameters of an equation with the dtypes of its float64 form, given its operands in that form."""
    params = dict(eqn.params)
    for key in DTYPE_PARAMETERS:
        if (double := DOUBLE_DTYPES.get(str(params.get(key)))) is not None:
            params[key] = jnp.dtype(double)
    # `DotAlgorithmPreset.BF16_BF16_F32` would round float64 operands. A precision is about float32 only, and is kept:
    # which operand has it is part of the operation's name.
    if isinstance(params.get("precision"), jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset):
        params["precision"] = None
    if any(str(getattr(value, "dtype", "")) in DOUBLE_DTYPES.values() for value in ins):
        for key, value in params.items():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                params[key] = _float64_jaxpr(value)
    return params


def _float64_jaxpr(value: Any) -> Any:
    jaxpr, _ = open_jaxpr(value)
    structs = [
        jax.ShapeDtypeStruct(v.aval.shape, DOUBLE_DTYPES.get(str(v.aval.dtype), v.aval.dtype)) for v in jaxpr.invars
    ]
    closed = jax.make_jaxpr(lambda *arrays: DrawReplay({}, float64=True).run(value, arrays))(*structs)
    return closed if isinstance(value, core.ClosedJaxpr) else closed.jaxpr
