"""What differs beside a known cause: gradients with the cause of the forward pass, updates on equal gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from equiv.comparison.explain.changed_loss import (
    HeldTrial,
    count_held,
    differentiate_loss,
    has_own_rules,
    trace_loss,
    trace_raw_loss,
)
from equiv.comparison.explain.forced_gradients import force_gradients
from equiv.comparison.explain.gradients import HeldCause, find_held
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import Changes
from equiv.comparison.explain.search import FoundDivergence, SearchResult, find_divergences, start_search
from equiv.comparison.explain.trying import Search, join_changes, unchanged
from equiv.core.leaves import LeafTable
from equiv.core.output_name import OutputName, ProgramName
from equiv.programs.traced_port import TracedPort

MAX_SECONDS_BEYOND = 15.0
"""Seconds of processor time after which no more causes of a second fault are tried."""


@dataclass(frozen=True, eq=False)
class Beyond:
    """What differs in a program beside what a simpler one already explains.

    Attributes:
        found: where; no divergences: nothing else differs.
        held: what one port holds fixed, where that is the cause.
        search: in the program with the known cause; None: nothing else differs.
    """

    found: SearchResult = field(default_factory=SearchResult)
    held: HeldCause | None = None
    search: Search | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing else differs."""
        return self.search is None


def find_beyond_loss(
    runs: ProgramRuns, name: ProgramName, ports: tuple[TracedPort, TracedPort], texts: frozenset[str], always: bool
) -> Beyond | None:
    """Find what differs in a gradient once the candidate's loss has the causes that explain the forward pass.

    Call it inside `jax.enable_x64(True)`.

    Args:
        runs: the gradients' programs.
        name: of these.
        ports: the reference and the candidate.
        texts: of the causes.
        always: look, even where both hold as much fixed and no rule of a user's is called: where equal losses have
            equal gradients, as a rule.

    Returns:
        None: that is not known, as the causes do not make the losses the same, or cannot be differentiated; or what
        differs then has no cause that makes the gradients the same.
    """
    raw = [trace_raw_loss(port, name) for port in ports]
    held = {count_held(loss) for loss in raw}
    if not always and len(held) == 1 and not any(map(has_own_rules, raw)):
        return Beyond()
    losses = [trace_loss(port, name) for port in ports]
    if any(map(has_own_rules, raw)) and not all(map(has_own_rules, losses)):
        return None  # with what is drawn as inputs, the rules are lost
    changes = _explain_losses(replace(runs, reference=losses[0], candidate=losses[1]), name, texts)
    changed = None if changes is None else differentiate_loss(ports[1], name, losses[1], HeldTrial(), changes)
    if changed is None:
        return None
    changed_runs = replace(runs, candidate=changed)
    search = start_search(changed_runs, seconds=MAX_SECONDS_BEYOND)
    if search is None:
        return Beyond()
    cause = find_held(search, name, ports, changes, losses)
    if cause is not None:
        return Beyond(held=cause, search=search)
    found = find_divergences(changed_runs, search)
    return Beyond(found, search=search) if _is_explained(found.divergences) else None


def _explain_losses(runs: ProgramRuns, name: ProgramName, texts: frozenset[str]) -> Changes | None:
    """The changes of the candidate's loss that are these causes; None: they do not make both the same."""
    runs = replace(runs, refuted=(OutputName(name, "loss"),))
    search = start_search(runs, texts=texts, seconds=MAX_SECONDS_BEYOND)
    if search is None:
        return Changes()
    found = find_divergences(runs, search).divergences
    if not _is_explained(found) or any(one.causes[0].trial.fixed for one in found):
        return None
    together = unchanged
    for one in found:
        together = join_changes(together, one.causes[0].trial.changes)
    return together(0)


def _is_explained(found: Sequence[FoundDivergence]) -> bool:
    """Whether every place has a cause, and with all of them nothing differs."""
    return bool(found) and all(one.causes for one in found) and any(one.causes[0].within for one in found)


def find_beyond_gradients(runs: ProgramRuns, tables: tuple[LeafTable, LeafTable]) -> Beyond | None:
    """Find what differs in the updates of two train steps, each on the reference's gradients.

    Call it inside `jax.enable_x64(True)`.

    Args:
        runs: the train steps.
        tables: the leaf tables of both ports.

    Returns:
        None: that is not known, as the steps have no gradients that can be replaced.
    """
    forced = force_gradients(runs, tables)
    if forced is None:
        return None
    search = start_search(*forced, seconds=MAX_SECONDS_BEYOND)
    return Beyond() if search is None else Beyond(find_divergences(forced[0], search), search=search)
