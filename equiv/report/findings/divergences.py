"""Where a program differs by its values, and the causes that were tried, in sentences: said here and nowhere else."""

from collections.abc import Iterator, Sequence

from equiv.core.divergence import Divergence, TriedCause
from equiv.core.first_difference import OPTIMIZER, FirstDifference
from equiv.core.results import CaseResult, Finding


def describe_divergences(finding: Finding) -> list[str]:
    """Describe where a refuted finding's program differs: both places, both values, and what was tried."""
    found = finding.divergences
    lines = [line for number, one in enumerate(found) for line in describe_divergence(one, number)]
    # Each program is explained by itself: what differs in another one was not tried together with these.
    first = [one for one in found if one.program == found[0].program]
    if len(first) > 1 and explains_all(first):
        lines.append(f"with {'all' if len(first) == len(found) else f'the first {len(first)}'} of these together: same")
    return lines


def find_case_divergences(case: CaseResult, candidate: str) -> tuple[Divergence, ...]:
    """Return the divergences of a candidate; all of its checks that have some have the same."""
    for check in case.checks:
        for finding in check.findings if check.candidate == candidate else ():
            if finding.divergences:
                return finding.divergences
    return ()


def describe_tried_causes(found: Sequence[Divergence]) -> tuple[str, ...]:
    """Describe the causes that were tried and explain a divergence, one sentence each."""
    return tuple(_cause_sentence(one, cause) for one in found for cause in one.causes)


def describe_place(one: Divergence) -> str:
    """Describe where a divergence is: its layer, and the operation and line of each port."""
    return f"{_layer_words(one) or f'in {one.program}'}: {'; '.join(map(_describe_site, one.sites))}"


def describe_divergence(one: Divergence, number: int) -> Iterator[str]:
    """Yield where a program differs, in sentences.

    Args:
        one: the divergence.
        number: how many come before it.
    """
    yield f"{'also differs' if number else 'first differs'} {describe_place(one)}"
    if one.reference and one.candidate and len(one.sites) == 2:
        yield f"there {one.sites[0].port} {one.reference}, {one.sites[1].port} {one.candidate}"
    for number, cause in enumerate(one.causes):
        yield f"{'also explains it' if number else 'tried'}: {_cause_sentence(one, cause)}"
    if not one.causes:
        if one.left is not None:
            yield f"with {one.sites[0].port}'s value there: {_left_words(one.left)}"
        yield f"no cause that was tried explains it{_possible(one)}"


def _cause_sentence(one: Divergence, cause: TriedCause) -> str:
    layers = {site.layer for site in one.sites if site.layer}
    at = f" {_layer_words(one)}" if layers and not any(f"`{layer}" in cause.text for layer in layers) else ""
    return f"with {cause.text}{at}: {'same' if cause.within else _left_words(cause.left)}"


def _left_words(left: float) -> str:
    return f"{left:.2g} of the error is left" if left else "same"


def explains_all(found: Sequence[Divergence]) -> bool:
    """Whether nothing differs any more, once all of these are taken away."""
    return any(cause.within for one in found for cause in one.causes) or any(one.left == 0 for one in found)


def _layer_words(one: Divergence) -> str:
    """In which layer; in which of each port, where they are not the same."""
    layers = {site.port: site.layer for site in one.sites if site.layer}
    if len(set(layers.values())) <= 1:
        return "".join(f"in {_quoted(layer)}" for layer in list(layers.values())[:1])
    return f"in {', '.join(f'{_quoted(layer)} ({port})' for port, layer in layers.items())}"


def _quoted(layer: str) -> str:
    return layer if layer == OPTIMIZER else f"`{layer}`"


def _describe_site(site: FirstDifference) -> str:
    given = f" with {', '.join(site.inputs)}" if site.inputs else ""
    line = site.user_line
    at = f" at {line.short}" if line else ""
    library = f" ({site.location.short})" if site.location and site.call_site else ""
    module = f" in {site.module}" if site.module else ""
    turn = f", iteration {'.'.join(map(str, site.turn))}" if site.turn else ""
    return f"{site.port} {site.primitive}{given}{module}{at}{library}{turn}"


def _possible(one: Divergence) -> str:
    """Return what differs between both operations, which was not tried or did not explain it."""
    if len(one.sites) != 2:
        return ""
    left, right = one.sites
    if left.primitive != right.primitive:
        return f"; possible: {left.primitive} in {left.port}, {right.primitive} in {right.port}"
    if left.inputs != right.inputs and left.inputs and right.inputs:
        return f"; possible: {', '.join(left.inputs)} in {left.port}, {', '.join(right.inputs)} in {right.port}"
    return ""
