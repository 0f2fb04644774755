"""`shard_map`: its body is named with the axes of its mesh bound, as a program that every device runs on its own part.

A value inside is a family of arrays, one for each device. An operation that does not communicate does the same on every
device, so that all rules hold for such families as for arrays. What communicates (`psum`, `axis_index`) is a symbol,
named by its parameters and by the mesh, its devices in order: equal families give equal families. What goes in is
named by the value, the mesh and how it is divided; what comes out by the family, the mesh and how it is put together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from equiv.programs.content import Content, ContentReader, digest
from equiv.programs.jaxpr import open_jaxpr
from equiv.programs.prover.terms import TermView, new_term

NumberBody = Callable[[Any, list[TermView]], list[TermView]]
"""Numbers a body: `(jaxpr, inputs)` to outputs, as term views."""

MADE_OF = frozenset(("mesh", "in_specs", "out_specs", "jaxpr", "check_vma", "newly_manual_axes"))
"""The parameters of a `shard_map` (jax 0.10.2); of a release with others it is a symbol."""


@dataclass
class Shards:
    """The `shard_map`s named so far.

    Attributes:
        bound: the meshes whose axes are bound where the current equation is, outermost first.
        put_together: term of a result to what it was put together from, by which division, and its view.
    """

    bound: tuple[Content, ...] = ()
    put_together: dict[str, tuple[str, TermView, TermView]] = field(default_factory=dict)


def number_shard_map(
    shards: Shards, eqn: Any, ins: Sequence[TermView], number_body: NumberBody
) -> list[TermView] | None:
    """Number a `shard_map` by its body; None where it has other parameters than those that are known."""
    params = eqn.params
    if params.keys() != MADE_OF:
        return None
    # Of what is not summed up yet, every device has a part of each element.
    if any(spec.unreduced or spec.reduced for name in ("in_specs", "out_specs") for spec in params[name]):
        return None
    body, consts = open_jaxpr(params["jaxpr"])
    if len(body.constvars) != len(consts) or eqn.effects:
        return None
    reader = ContentReader()
    axes = sorted(params["newly_manual_axes"])
    mesh = (reader.read(params["mesh"]), reader.read_all(axes), params["check_vma"], shards.bound)
    divisions = [[_division(mesh, spec) for spec in params[name]] for name in ("in_specs", "out_specs")]
    given = [
        _divide(shards, value, division, var.aval)
        for value, division, var in zip(ins, divisions[0], body.invars, strict=True)
    ]
    outer, shards.bound = shards.bound, (*shards.bound, digest(mesh))
    outs = number_body(params["jaxpr"], given)
    shards.bound = outer
    whole = [_is_whole(params, spec, axes) for spec in params["out_specs"]]
    return [
        _put_together(shards, value, division, var.aval, known)
        for value, division, var, known in zip(outs, divisions[1], eqn.outvars, whole, strict=True)
    ]


def _axis_names(spec: Any) -> list[tuple[Any, ...]]:
    """For every axis of an array the axes of the mesh that divide it, up to the last one that any divides."""
    names = [() if one is None else one if isinstance(one, tuple) else (one,) for one in spec]
    while names and not names[-1]:
        names.pop()
    return names


def _division(mesh: Content, spec: Any) -> str:
    """A name for how an array is divided over the devices of a mesh."""
    return digest("division", mesh, ContentReader().read(_axis_names(spec)))


def _is_whole(params: dict[str, Any], spec: Any, axes: Sequence[Any]) -> bool:
    """Whether a result has all that its parts have: over axes that do not divide it they are equal on every device."""
    # Without the check a body may return different parts there, of which the result has one.
    return params["check_vma"] or {name for names in _axis_names(spec) for name in names} >= set(axes)


def _divide(shards: Shards, value: TermView, division: str, aval: Any) -> TermView:
    """The part of a value that each device has."""
    if value.constant is not None:
        return TermView(value.term, (None,) * len(aval.shape), tuple(aval.shape), value.dtype, value.constant)
    # What was put together and is divided again in the same way, as between a forward and a backward pass.
    known = shards.put_together.get(value.term)
    if known is not None and known[0] == division and known[2] == value:
        return known[1]
    return new_term(digest("part of each", division, value.name), aval.shape, aval.dtype)


def _put_together(shards: Shards, value: TermView, division: str, aval: Any, whole: bool) -> TermView:
    """The array whose parts each device has."""
    if value.constant is not None:
        return TermView(value.term, (None,) * len(aval.shape), tuple(aval.shape), value.dtype, value.constant)
    result = new_term(digest("put together", division, value.name, aval.shape), aval.shape, aval.dtype)
    if whole:
        shards.put_together[result.term] = division, value, result
    return result
