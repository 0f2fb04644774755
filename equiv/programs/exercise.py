"""What a run exercises: rows that are looked up, branches that are taken, sides of a threshold that are seen, ties.

`equiv.programs.observer` observes it; here it is merged over runs, and what is exercised in part is listed.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from typing import Literal as OneOf

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from equiv.core.output_name import STEP
from equiv.core.scope import ExerciseKind, Unexercised
from equiv.programs import primitives
from equiv.programs.jaxpr import visit_equations
from equiv.programs.program import Program

WHOLE_COMPARISONS = primitives.COMPARISONS | {"max", "min", "clamp"}
"""Primitives that ask of whole numbers what one of them is."""

MOST_KINKS = 3
"""Most kinks without a tie that are named."""


@dataclass(frozen=True)
class Site:
    """A place that may be exercised in part.

    Attributes:
        kind: of the place; `overflow`: an exponential, which a threshold makes infinite.
        where: `FILE:LINE` of the user's code; empty if unknown.
        bound: the number of rows or branches there are; the threshold.
        relation: what is asked of the threshold: `>`, `>=`, `<` or `<=`; the primitive of a kink; `select` of a branch.
        training: whether it is in a train step, whose values are others than those of a call.
        kink: whether floats that inputs decide may be tied there.
        drawn: whether draws alone decide it, whatever the inputs are.
    """

    kind: ExerciseKind | OneOf["overflow"]
    where: str
    bound: float = 0.0
    relation: str = ""
    training: bool = False
    kink: bool = False
    drawn: bool = False

    @property
    def text(self) -> str:
        """What is asked there, and where."""
        asked = f"{self.relation} {self.bound:.6g}" if self.kind == "threshold" else self.relation
        return f"{asked} at {self.where}" if self.where else asked


Observed = Mapping[Site, np.ndarray]
"""Site to what a run exercised there: a mark per row or branch, or for a tie, else the smallest and the largest value,
and of a threshold how many values were exactly that, in the program and turn with the most."""


def merge_statistics(site: Site, statistics: Any) -> Any:
    """Merge the statistics of several turns or runs, on axis 0."""
    if site.kind in ("rows", "branch", "kink"):
        return statistics.any(axis=0)
    ends = [jnp.nanmin(statistics[:, 0]), jnp.nanmax(statistics[:, 1])]  # what is no number is on no side
    return jnp.stack(ends if site.kind == "loop" else [*ends, statistics[:, 2].max()])


def integer_literals(program: Program) -> frozenset[int]:
    """The whole numbers that a program compares whole numbers with."""
    return frozenset(
        int(atom.val)
        for _, eqn in visit_equations(program.jaxpr)
        if eqn.primitive.name in WHOLE_COMPARISONS
        for atom in eqn.invars
        if isinstance(atom, Literal) and _is_whole(atom.val)
    )


def _is_whole(value: Any) -> bool:
    return np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.integer)


def merge_observed(runs: Sequence[Observed]) -> dict[Site, np.ndarray]:
    """Merge what several runs of one port exercised."""
    merged: dict[Site, list[np.ndarray]] = {}
    for run in runs:
        for site, statistics in run.items():
            merged.setdefault(site, []).append(statistics)
    return {site: np.asarray(merge_statistics(site, np.stack(found))) for site, found in merged.items()}


def list_unexercised(port: str, observed: Observed) -> tuple[Unexercised, ...]:
    """List the places that no run exercised whole, and how many kinks had no tie.

    Args:
        port: name of the port.
        observed: merged over all runs.
    """
    # A place in a call is in the train step too: what counts is the call.
    called = {site for site in observed if not site.training}
    own = {
        site: statistics
        for site, statistics in observed.items()
        if not (site.training and replace(site, training=False) in called)
    }
    found = [
        Unexercised(port, site.kind, site.where, seen, site.bound, site.relation)
        for site, statistics in own.items()
        if site.kind not in ("overflow", "kink")
        if (seen := exercised_in_part(site, statistics))
    ]
    asked = {one.where for one in found if one.kind == "threshold"}
    # `where(x > 60, ...)` is said once.
    listed = (one for one in found if not (one.relation == "select" and one.where in asked))
    return (*listed, *_list_kinks(port, own))


def _list_kinks(port: str, observed: Observed) -> Iterator[Unexercised]:
    """Yield how many kinks had a tie or a zero, if not all."""
    kinks = {site: bool(statistics[-1]) for site, statistics in observed.items() if site.kink}
    missed = [site.text for site, met in kinks.items() if not met]
    if missed:
        more = f" and {len(missed) - MOST_KINKS} more" if len(missed) > MOST_KINKS else ""
        where = f"{', '.join(missed[:MOST_KINKS])}{more}"
        yield Unexercised(port, "kink", where, (float(len(kinks) - len(missed)),), len(kinks))


def list_unaimed(port: str, observed: Observed, known: Container[float]) -> Iterator[Unexercised]:
    """Yield the thresholds that no probe is made for, since those who made the probes did not know of them.

    Args:
        port: name of the port.
        observed: merged over all runs.
        known: thresholds that probes are made for.
    """
    own = (site for site in observed if site.kind in ("threshold", "overflow") and site.bound not in known)
    places = {(site.relation, site.bound, site.where) for site in own if site.bound != 0}
    for relation, bound, where in sorted(places):
        yield Unexercised(port, "unaimed", where, (), bound, relation)


def list_untried_tails(port: str, programs: Sequence[Program], tried: bool) -> Iterator[Unexercised]:
    """Yield how many draws of calls and train steps were not given the ends of what they can be.

    Args:
        port: name of the port.
        programs: its programs.
        tried: whether a probe gave them, to all draws that have room for several numbers.
    """
    drawn = [(part.name, draw) for part in programs if part.name.is_forward or part.name == STEP for draw in part.draws]
    missed = [name for name, draw in drawn if not tried or not draw.shape or draw.shape[-1] < 2]
    if missed:
        where = f"of {', '.join(map(str, dict.fromkeys(missed)))}"
        yield Unexercised(port, "draw", where, (float(len(drawn) - len(missed)),), len(drawn))


def exercised_in_part(site: Site, statistics: np.ndarray) -> tuple[float, ...]:
    """What was exercised of a place; empty where it is everything."""
    if site.kind == "rows":
        return () if statistics.all() else (float(statistics.sum()),)
    if site.kind == "branch":
        return () if statistics.all() else tuple(map(float, np.flatnonzero(statistics)))
    low, high = (float(one) for one in statistics[:2])
    if site.kind == "loop":
        return low, high
    below, above = (
        (low < site.bound, high >= site.bound)
        if site.relation in ("<", ">=")
        else (low <= site.bound, high > site.bound)
    )
    return () if below and above else (low, high)
