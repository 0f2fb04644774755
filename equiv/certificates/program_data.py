"""Programs as plain data: what a certificate keeps of a jaxpr, and what the checker reads."""

import hashlib
from typing import Any

import numpy as np
from jax.extend import core

from equiv.certificates.checker.check import digest
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.errors import EquivError
from equiv.programs.content import Content, ContentReader, is_jax_primitive, is_key, read_key
from equiv.programs.jaxpr import called_jaxpr, open_jaxpr, read_scan, read_while
from equiv.programs.primitives import CALLS
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
    """Describe a jaxpr: variables are numbered as they appear, constants first, then inputs, then results."""
    jaxpr, consts = open_jaxpr(closed)
    numbers: dict[Any, int] = {}

    def bind(variables: Any) -> list[list[Any]]:
        for variable in variables:
            numbers[variable] = len(numbers)
        return [[list(variable.aval.shape), dtype_name(variable.aval.dtype)] for variable in variables]

    def refer(atoms: Any) -> list[Any]:
        return [
            describe_constant(_literal_array(one)) if isinstance(one, core.Literal) else numbers[one] for one in atoms
        ]

    bind(jaxpr.constvars)
    data: dict[str, Any] = {"constants": list(map(describe_constant, consts)), "inputs": bind(jaxpr.invars)}
    equations = []
    for eqn in jaxpr.eqns:
        given = refer(eqn.invars)
        equations.append({**_describe_operation(eqn), "in": given, "out": bind(eqn.outvars)})
    return {**data, "equations": equations, "outputs": refer(jaxpr.outvars)}


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


def describe_parameters(params: list[tuple[str, Content]]) -> dict[str, Any]:
    """Parameters by name, as JSON has them."""
    return {key: to_json(value) for key, value in params}


def _describe_operation(eqn: Any) -> dict[str, Any]:
    """Describe what an equation does: `op`, `params`, and the jaxprs that it runs."""
    name, bodies, params = eqn.primitive.name, [], {}
    if not is_jax_primitive(eqn.primitive):
        raise NotCertified(f"the primitive {name} is not one of jax")
    if name in CALLS:
        name, bodies = "call", [called_jaxpr(eqn)]
    elif name == "scan":
        loop = read_scan(eqn)
        bodies = [loop.body]
        params = {"length": loop.length, "reverse": loop.reverse, "constants": loop.constants, "carries": loop.carries}
    elif name == "while":
        again = read_while(eqn)
        bodies, params = [again.test, again.body], {"test": again.test_constants, "body": again.body_constants}
    elif name == "cond":
        bodies = list(eqn.params["branches"])
    elif eqn.effects:
        raise NotCertified(f"{name} has effects")
    else:
        kept = {
            key: _without_numpy(value) if key in AXES else value
            for key, value in eqn.params.items()
            if key not in IGNORED_PARAMS
        }
        params = describe_parameters(ContentReader(_refuse_object).read_parameters(kept))
    return {"op": name, "params": params, "bodies": list(map(describe_jaxpr, bodies))}


AXES = ("axes", "broadcast_dimensions", "dimension_numbers", "dimensions", "permutation", "y")
"""Parameters that the checker reads, and does not only compare."""


def _without_numpy(value: Any) -> Any:
    """Whole numbers of numpy, which jax keeps where it is given them, as those of Python."""
    if type(value) is tuple:
        return tuple(map(_without_numpy, value))
    return int(value) if isinstance(value, np.integer) else value


def _refuse_object(value: Any) -> Content:
    raise NotCertified(f"a parameter is a {type(value).__name__}, which only this process has")
