"""Operands and carries of a `while` on which no output depends: removed, as jax removes those of a `scan`.

jax 0.10.2 has no rule for `while` (`loops.py`): one used result keeps every carry and all that they are computed from,
such as the random keys that `hk.while_loop` gives its body whether it draws or not.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend import core
from jax.interpreters import partial_eval

from equiv.programs.jaxpr import open_jaxpr, read_while, visit_equations


def has_while(jaxpr: Any) -> bool:
    """Whether a jaxpr has a `while`, in calls and loops too."""
    return any(eqn.primitive.name == "while" for _, eqn in visit_equations(jaxpr))


def remove_dead(jaxpr: Any, keep: Sequence[bool], wanted: Sequence[bool] = ()) -> tuple[Any, list[bool]]:
    """Remove from an open jaxpr the equations, and the carries of loops, on which no output depends.

    Args:
        jaxpr: the open jaxpr.
        keep: for each output whether it is kept.
        wanted: for each input whether it stays in any case; empty: none does.

    Returns:
        The jaxpr, and for each input whether it is left.
    """
    wanted = list(wanted) or [False] * len(jaxpr.invars)
    pruned, used = partial_eval.dce_jaxpr(jaxpr, list(keep), wanted)
    if not has_while(pruned):
        return pruned, used
    while (slim := _without_dead_carries(pruned)) is not pruned:
        left = [index for index, is_used in enumerate(used) if is_used]
        stay = [wanted[index] for index in left]
        pruned, still = partial_eval.dce_jaxpr(slim, [True] * len(slim.outvars), stay)
        used = [False] * len(used)
        for index, is_used in zip(left, still, strict=True):
            used[index] = is_used
    return pruned, used


def _without_dead_carries(jaxpr: Any) -> Any:
    """Remove the carries of every `while`, in calls and loops too, that nothing needs; the same object: none is."""
    needed = _variables(jaxpr.outvars)
    eqns: list[Any] = []
    for eqn in reversed(jaxpr.eqns):
        own = _prune_while(eqn, needed) if eqn.primitive.name == "while" else eqn
        eqns.append(_prune_inside(own))
        needed |= _variables(eqns[-1].invars)
    eqns.reverse()
    changed = any(one is not other for one, other in zip(eqns, jaxpr.eqns, strict=True))
    return jaxpr.replace(eqns=eqns) if changed else jaxpr


def _variables(atoms: Sequence[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, core.Literal)}


def _prune_inside(eqn: Any) -> Any:
    """Remove dead carries in the jaxprs that an equation calls or loops over."""

    def prune(value: Any) -> Any:
        if isinstance(value, tuple):
            items = tuple(map(prune, value))
            return value if all(one is other for one, other in zip(items, value, strict=True)) else items
        if not (hasattr(value, "eqns") or hasattr(value, "jaxpr")):
            return value
        inner, _ = open_jaxpr(value)
        slim = _without_dead_carries(inner)
        if slim is inner:
            return value
        return value.replace(jaxpr=slim) if isinstance(value, core.ClosedJaxpr) and inner is not value else slim

    params = {name: prune(value) for name, value in eqn.params.items()}
    changed = any(params[name] is not value for name, value in eqn.params.items())
    return eqn.replace(params=params) if changed else eqn


def _prune_while(eqn: Any, needed: set[Any]) -> Any:
    """Remove the operands of a `while` that neither a needed result nor the test depends on, whatever the turn."""
    loop = read_while(eqn)
    test, test_consts = open_jaxpr(loop.test)
    body, body_consts = open_jaxpr(loop.body)
    _, tested = remove_dead(test, [True])
    kept = [out in needed or asked for out, asked in zip(eqn.outvars, tested[loop.test_constants :], strict=True)]
    while True:
        _, used = remove_dead(body, kept)
        following = [one or other for one, other in zip(kept, used[loop.body_constants :], strict=True)]
        if following == kept:
            break
        kept = following
    # A carry that is needed stays an input of both bodies, whether they read it or not.
    slim, used = remove_dead(body, kept, [False] * loop.body_constants + kept)
    asks, asked = remove_dead(test, [True], [False] * loop.test_constants + kept)
    operands = (*asked[: loop.test_constants], *used[: loop.body_constants], *kept)
    if all(operands):
        return eqn
    return eqn.replace(
        invars=[atom for atom, stays in zip(eqn.invars, operands, strict=True) if stays],
        outvars=[out for out, stays in zip(eqn.outvars, kept, strict=True) if stays],
        params={
            **eqn.params,
            "cond_jaxpr": core.ClosedJaxpr(asks, test_consts),
            "body_jaxpr": core.ClosedJaxpr(slim, body_consts),
            "cond_nconsts": sum(asked[: loop.test_constants]),
            "body_nconsts": sum(used[: loop.body_constants]),
        },
    )
