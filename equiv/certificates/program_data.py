"""Programs as plain data: what a certificate keeps of a jaxpr, and what the checker reads."""

import hashlib
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from jax import lax
from jax.extend import core

from equiv.certificates.checker.check import digest
from equiv.certificates.checker.terms import Index, Refused, as_new, cut, to_text, whole
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.errors import EquivError
from equiv.programs.content import Content, ContentReader, is_key, read_key
from equiv.programs.jaxpr import called_jaxpr, open_jaxpr, read_scan, read_while
from equiv.programs.primitives import CALLS, ELEMENTWISE, IDENTITIES, REDUCTIONS, STATEFUL, is_jax_primitive
from equiv.programs.program import Program
from equiv.programs.prover.proof import Precision
from equiv.programs.prover.terms import IGNORED_PARAMS, dtype_name


class NotCertified(EquivError):
    """A proof has no certificate, for the reason that the message gives."""


def describe_program(program: Program, side: int, precision: Precision) -> dict[str, Any]:
    """Describe a program, with its digest.

    Args:
        program: the program.
        side: 0: of the reference, 1: of the candidate.
        precision: as traced, or the float64 reading with or without its casts.

    Raises:
        NotCertified: something in it has no content, such as a host function, or has effects.
    """
    data = {
        "side": side,
        "name": describe_program_name(program.name),
        "precision": precision,
        "inputs": [describe_input(name) for name in program.inputs],
        "outputs": [describe_output(name) for name in program.outputs],
        "jaxpr": describe_jaxpr(program.jaxpr),
    }
    return {**data, "digest": digest(data)}


def describe_program_name(name: ProgramName) -> list[str]:
    """A program's name: kind and method."""
    return [name.kind, name.method]


def describe_input(name: InputName) -> list[str]:
    """An input's name: kind, path and leaf."""
    return [name.kind, name.path, name.leaf]


def describe_output(name: OutputName) -> list[str]:
    """An output's name within its program: kind, path and leaf."""
    return [name.kind, name.path, name.leaf]


def describe_jaxpr(closed: Any) -> dict[str, Any]:
    """Describe a jaxpr: variables are numbered as they appear, constants first, then inputs, then results.

    What is called stands where it is called.
    """
    jaxpr, consts = open_jaxpr(closed)
    found = _Equations()
    found.bind(jaxpr.constvars)
    data: dict[str, Any] = {"constants": list(map(describe_constant, consts)), "inputs": found.bind(jaxpr.invars)}
    outputs = found.describe(jaxpr)
    return {**data, "equations": found.equations, "outputs": outputs}


class _Equations:
    """Equations with their variables by number, or as literals."""

    def __init__(self) -> None:
        self.atoms: dict[Any, Any] = {}
        self.equations: list[dict[str, Any]] = []
        self.bound = 0

    def bind(self, variables: Any) -> list[list[Any]]:
        """Number variables; their shapes and dtypes."""
        for variable in variables:
            self.atoms[variable] = self.bound
            self.bound += 1
        return [[list(variable.aval.shape), dtype_name(variable.aval.dtype)] for variable in variables]

    def refer(self, atoms: Any) -> list[Any]:
        """Variables by number, and literals."""
        return [
            describe_constant(_literal_array(one)) if isinstance(one, core.Literal) else self.atoms[one]
            for one in atoms
        ]

    def describe(self, jaxpr: Any) -> list[Any]:
        """Add the equations of a jaxpr whose inputs are known; its outputs."""
        for eqn in jaxpr.eqns:
            given = self.refer(eqn.invars)
            if is_jax_primitive(eqn.primitive) and eqn.primitive.name in CALLS:
                inner, consts = open_jaxpr(called_jaxpr(eqn))
                self.atoms |= dict(zip(inner.constvars, map(describe_constant, consts), strict=True))
                self.atoms |= dict(zip(inner.invars, given[len(given) - len(inner.invars) :], strict=True))
                self.atoms |= dict(zip(eqn.outvars, self.describe(inner), strict=True))
                continue
            kind, op, data, bodies = describe_operation(eqn)
            described = {"kind": kind, "op": op, "data": data, "bodies": list(map(describe_jaxpr, bodies))}
            self.equations.append({**described, "in": given, "out": self.bind(eqn.outvars)})
        return self.refer(jaxpr.outvars)


def _literal_array(atom: Any) -> np.ndarray:
    return np.asarray(atom.val, atom.aval.dtype)


def describe_constant(array: Any) -> list[Any]:
    """Describe a constant: kind, bytes or their digest, shape and dtype; a `number` is the same everywhere."""
    if is_key(array):
        return ["key", hash_content(read_key(array)), list(array.shape), dtype_name(array.dtype)]
    numbers = np.asarray(array)
    first = numbers.reshape(-1)[:1]
    shape, dtype = list(numbers.shape), dtype_name(numbers.dtype)
    if first.size and numbers.tobytes() == first.tobytes() * numbers.size:
        return ["number", first.tobytes().hex(), shape, dtype]
    return ["array", hash_bytes(numbers.tobytes()), shape, dtype]


def hash_bytes(data: bytes) -> str:
    """The digest of an array's bytes."""
    return hashlib.sha256(data).hexdigest()


def hash_content(content: Content) -> str:
    """The digest of a constant that is no array of numbers."""
    return hash_bytes(repr(to_json(content)).encode())


def to_json(content: Content) -> Any:
    """Content as JSON has it."""
    if isinstance(content, tuple | list):
        return [to_json(one) for one in content]
    if isinstance(content, bytes):
        return ["bytes", content.hex()]
    if isinstance(content, float) and not np.isfinite(content):
        return ["float", content.hex()]
    return content.item() if isinstance(content, np.generic) else content


def describe_parameters(params: Iterable[tuple[str, Content]]) -> str:
    """Parameters by name, as the text of a JSON object; without those that are not set."""
    return to_text({key: to_json(value) for key, value in params if value is not None})


def describe_operation(eqn: Any) -> tuple[str, str, Any, list[Any]]:
    """Describe what an equation does: its kind, operation, data, and the jaxprs that it runs.

    Kinds are `view` (data: of each operand, which is a result too, the index on each of its axes), `elementwise`
    and `operation` (the parameters), `meeting` (a reduction or contraction: the parameters, those with the operands
    exchanged, and of each operand the names of its axes, of which those of the result come first), and loops.

    Raises:
        NotCertified: something in it has no content, or has effects.
    """
    name, params = eqn.primitive.name, eqn.params
    if not is_jax_primitive(eqn.primitive):
        raise NotCertified(f"the primitive {name} is not one of jax")
    if name == "scan":
        loop = read_scan(eqn)
        data = {"length": loop.length, "reverse": loop.reverse, "constants": loop.constants, "carries": loop.carries}
        return name, name, data, [loop.body]
    if name == "while":
        again = read_while(eqn)
        return name, name, {"test": again.test_constants, "body": again.body_constants}, [again.test, again.body]
    if name == "cond":
        return name, name, None, list(params["branches"])
    if eqn.effects or name in STATEFUL:
        raise NotCertified(f"{name} has effects")
    if (view := _describe_view(eqn)) is not None:
        return "view", name, view, []
    kept = {key: value for key, value in params.items() if key not in IGNORED_PARAMS and key not in META.get(name, ())}
    text = describe_parameters(ContentReader(_refuse_object).read_parameters(kept))
    if name == "dot_general" or name in REDUCTIONS:
        kept["precision"] = turn_precision(params.get("precision"))
        turned = describe_parameters(ContentReader(_refuse_object).read_parameters(kept))
        return "meeting", name, [text, turned, _label_axes(eqn)], []
    if name not in ELEMENTWISE or (
        name == "bitcast_convert_type" and eqn.invars[0].aval.shape != eqn.outvars[0].aval.shape
    ):
        return "operation", name, text, []
    # The square of complex numbers rounds, and overflows, otherwise than a product.
    squared = name == "integer_pow" and params["y"] == 2 and eqn.invars[0].aval.dtype.kind != "c"
    op = "square" if squared else "add" if name == "add_any" else name
    return "elementwise", op, "{}" if squared or name == "convert_element_type" else text, []


META = dict.fromkeys(REDUCTIONS, ("axes",)) | {"dot_general": ("dimension_numbers", "preferred_element_type")}
"""Parameters that a description has in another form."""


def turn_precision(precision: Any) -> Any:
    """The precision of a contraction whose operands are exchanged."""
    if isinstance(precision, lax.DotAlgorithm):
        return precision._replace(
            lhs_precision_type=precision.rhs_precision_type,
            rhs_precision_type=precision.lhs_precision_type,
            lhs_component_count=precision.rhs_component_count,
            rhs_component_count=precision.lhs_component_count,
        )
    return precision[::-1] if isinstance(precision, tuple) else precision


def _label_axes(eqn: Any) -> list[list[int]]:
    if eqn.primitive.name == "dot_general":
        sums, batches = eqn.params["dimension_numbers"]
    else:
        sums, batches = (eqn.params["axes"],), ((),)
    labels, place, rank = list[list[int]](), len(batches[0]), len(eqn.outvars[0].aval.shape)
    for atom, summed, batch in zip(eqn.invars, sums, batches, strict=True):
        known = {axis: number for number, axis in enumerate(batch)}
        known |= {axis: rank + number for number, axis in enumerate(summed)}
        rest = [axis for axis in range(len(atom.aval.shape)) if axis not in known]
        known |= {axis: place + number for number, axis in enumerate(rest)}
        place += len(rest)
        labels.append([known[axis] for axis in range(len(known))])
    return labels


def _describe_view(eqn: Any) -> list[list[Index]] | None:
    """The view that an equation makes of each operand; None where it is no view."""
    name, params = eqn.primitive.name, eqn.params
    if name in IDENTITIES:
        return [[whole(*one) for one in enumerate(atom.aval.shape)] for atom in eqn.invars]
    if not eqn.invars or len(eqn.outvars) != 1:
        return None
    given, made = eqn.invars[0].aval, eqn.outvars[0].aval
    if name == "convert_element_type" and given.dtype == made.dtype:
        places = list(range(len(given.shape)))
    elif name == "transpose":
        places = [params["permutation"].index(axis) for axis in range(len(given.shape))]
    elif name == "broadcast_in_dim":
        places = list(params["broadcast_dimensions"])
    elif name == "tile":
        places = list(range(len(given.shape)))
    elif name in ("reshape", "squeeze") or (
        name in REDUCTIONS and all(given.shape[axis] == 1 for axis in params["axes"])
    ):
        if name == "reshape" and params["dimensions"] is not None:
            return None
        row = tuple(digit for one in as_new(made.shape) for digit in one)
        inner = [prod(given.shape[axis + 1 :]) for axis in range(len(given.shape))]
        try:
            return [[cut(row, low, n) if n != 1 else () for low, n in zip(inner, given.shape, strict=True)]]
        except (Refused, ZeroDivisionError):
            return None
    else:
        return None
    return [[whole(int(place), size) for place, size in zip(places, given.shape, strict=True)]]


def _refuse_object(value: Any) -> Content:
    raise NotCertified(f"a parameter is a {type(value).__name__}, which only this process has")
