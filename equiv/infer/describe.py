"""A proposal in words."""

from collections import Counter
from collections.abc import Iterator, Sequence

from equiv.core.layouts import Identity
from equiv.infer.matching.proposal import Bounds, Pair, Proposal
from equiv.infer.matching.relations import layouts
from equiv.infer.session import Inferred

KNOWN = {
    "position": "by position",
    "function": "by function",
    "shape": "by shape alone",
    "name": "by name alone",
    "order": "interchangeable",
}
"""Evidence in words."""


def headline(inferred: Inferred) -> str:
    """How much is mapped, and how that is known."""
    pairs = inferred.proposal.pairs
    names = [port.backend for port in inferred.proposal.ports]
    number = len({pair.left for pair in pairs}), len({pair.right for pair in pairs})
    ways = Counter(KNOWN[pair.evidence] for pair in pairs)
    how = ", ".join(f"{count} {way}" for way, count in ways.items())
    took = f"{inferred.seconds:.1f} s"
    leaves = f"{number[0]} leaves of {names[0]} and {number[1]} of {names[1]}"
    if inferred.complete:
        return f"Mapped: {leaves} ({how}) in {took}."
    missing = len(inferred.left) + len(inferred.problems)
    first = inferred.problems[0] if inferred.problems else _left(inferred)[0]
    what = "leaf" if missing == 1 else "leaves"
    return f"Not mapped: {missing} {what}. First: {first}. Mapped: {leaves} ({how}) in {took}."


def place(pair: Pair, proposal: Proposal, side: int) -> str:
    """A leaf, and which part of it, as it would be sliced."""
    key, bounds = (pair.left, pair.right)[side], pair.bounds[side]
    shape = tuple(proposal.ports[side].leaves[key].shape)
    return f"{key.path}{_slices(bounds, shape)} {list(shape)}"


def _slices(bounds: Bounds, shape: Sequence[int]) -> str:
    if bounds == tuple((0, size) for size in shape):
        return ""
    parts = [
        ":" if (start, stop) == (0, size) else str(start) if stop - start == 1 else f"{start}:{stop}"
        for (start, stop), size in zip(bounds, shape, strict=True)
    ]
    return f"[{', '.join(parts)}]"


def layout(pair: Pair, proposal: Proposal) -> str:
    """How the left leaf becomes the right one; empty: as it is."""
    shapes = [tuple(stop - start for start, stop in bounds) for bounds in pair.bounds]
    ones = [tuple(size for size in shape if size > 1) for shape in shapes]
    words = []
    whole = [tuple(port.leaves[key].shape) for port, key in zip(proposal.ports, (pair.left, pair.right), strict=True)]
    if pair.relation is None:
        words.append("unknown")
    elif shapes == whole:
        found = layouts(pair.relation, (shapes[0], shapes[1]))
        both = zip(proposal.ports, found or (), strict=found is not None)
        words += [f"{port.backend}: {one}" for port, one in both if one != Identity()] if found else ["rearranged"]
    elif ones[0] != ones[1]:
        words.append("reshaped")
    if pair.shift:
        words.append(f"{pair.shift:+g}")
    return ", ".join(words)


def by_row(inferred: Inferred) -> Iterator[tuple[str, ...]]:
    """Cells of a table with one line for each row: its name and kind, both places, layouts, and how it is known."""
    proposal = inferred.proposal
    names = [port.backend for port in proposal.ports]
    for row in inferred.rows:
        pairs = [proposal.pairs[number] for number in row.pairs]
        told = dict.fromkeys(layout(pair, proposal) for pair in pairs)
        parts = any(place(pair, proposal, side).partition(" ")[0].endswith("]") for pair in pairs for side in (0, 1))
        layouts = "; ".join([*filter(None, told), *(["in parts"] if parts else [])])
        known = Counter(KNOWN[pair.evidence] for pair in pairs)
        how = ", ".join(f"{count} {way}" for way, count in known.items()) if len(known) > 1 else next(iter(known))
        scopes = (row.layer.scopes[name] or "(the model)" for name in names)
        yield f"{row.layer.path} ({row.layer.kind})", *scopes, layouts, how
    yield from (cells for cells in by_leaf(inferred) if cells[0] == "none")


def by_leaf(inferred: Inferred) -> Iterator[tuple[str, ...]]:
    """The same with one line for each leaf; `none` where no row has it."""
    proposal = inferred.proposal
    rows = {number: row for row in inferred.rows for number in row.pairs}
    for number, pair in enumerate(proposal.pairs):
        row = rows.get(number)
        title = f"{row.layer.path} ({row.layer.kind})" if row and number == min(row.pairs) else "" if row else "none"
        leaves = (place(pair, proposal, side) for side in (0, 1))
        yield title, *leaves, layout(pair, proposal), KNOWN[pair.evidence]


def remarks(inferred: Inferred) -> list[str]:
    """What is ambiguous, contradicts the names, or is not mapped, and why."""
    proposal = inferred.proposal
    names = [port.backend for port in proposal.ports]
    lines = []
    for one, two in proposal.crossed:
        pairs = proposal.pairs[one], proposal.pairs[two]
        told = " and ".join(f"{pair.left.path} is {pair.right.path}" for pair in pairs)
        lines.append(f"Against the names: {told}. The programs say so; look whether the names or the code is wrong.")
    groups: dict[int, list[Pair]] = {}
    for pair in proposal.pairs:
        if pair.alike:
            groups.setdefault(pair.alike, []).append(pair)
    for some in groups.values():
        told = ", ".join(pair.left.path for pair in some)
        lines.append(f"Interchangeable, with their layers: {told} ({names[0]}). Any order is the same function.")
    for pair in proposal.pairs:
        if pair.evidence in ("shape", "name"):
            told = f"{pair.left.path} is {pair.right.path}"
            lines.append(f"Known {KNOWN[pair.evidence]}: {told}. Neither place nor gradient tells.")
    lines += [f"Not mapped: {line}." for line in (*inferred.problems, *_left(inferred))]
    return lines + [f"Note: {note}." for note in proposal.notes]


def doubt(inferred: Inferred) -> str:
    """What has to be said of ports that differ under a map that nobody wrote."""
    pairs = inferred.proposal.pairs
    weak = sum(pair.evidence in ("shape", "name") for pair in pairs)
    more = f"; {weak} of its {len(pairs)} leaves are known by shape or name alone" if weak else ""
    return f"The layer table was inferred{more}: a wrong row shows like this too. Look at it with equiv map."


def _left(inferred: Inferred) -> list[str]:
    names = [port.backend for port in inferred.proposal.ports]
    return [f"{names[one.side]} {one.key}: {one.reason}" for one in inferred.left]
