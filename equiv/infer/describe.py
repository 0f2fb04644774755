"""Text that describes inferred layers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from equiv.core.layer_kinds import ONLY
from equiv.core.layouts import Identity
from equiv.core.results import CaseResult
from equiv.infer.matching.proposal import Bounds, LeafPair, Proposal
from equiv.infer.session import InferredLayers
from equiv.infer.table.layout_search import canonical_layouts
from equiv.infer.table.leaf_views import part_index, within_parts

EVIDENCE_WORDS = {
    "position": "by position",
    "gradient": "by gradient",
    "shape": "by shape alone",
    "name": "by name alone",
    "interchangeable": "interchangeable",
    "order": "in order, as nothing reads it",
    "sequence": "by order alone",
}
"""How each kind of evidence is printed."""

NAMED = 3
"""Number of leaves that a caveat names."""

WEAK_EVIDENCE = ("shape", "name", "sequence")
"""Kinds of evidence that neither position nor gradient supports."""


def inference_headline(inferred: InferredLayers) -> str:
    """How many leaves are mapped, and by which evidence."""
    pairs = inferred.proposal.pairs
    names = [port.name for port in inferred.proposal.ports]
    number = len({pair.left for pair in pairs}), len({pair.right for pair in pairs})
    ways = Counter(EVIDENCE_WORDS[pair.evidence] for pair in pairs)
    how = ", ".join(f"{count} {way}" for way, count in ways.items())
    took = f"{inferred.seconds:.1f} s"
    leaves = f"{number[0]} leaves of {names[0]} and {number[1]} of {names[1]}"
    if inferred.complete:
        return f"Mapped: {leaves} ({how}) in {took}."
    missing = len(inferred.unpaired) + len(inferred.problems)
    first = inferred.problems[0] if inferred.problems else _unpaired_lines(inferred)[0]
    what = "leaf" if missing == 1 else "leaves"
    return f"Not mapped: {missing} {what}. First: {first}. Mapped: {leaves} ({how}) in {took}."


def leaf_slice(pair: LeafPair, proposal: Proposal, side: int) -> str:
    """Path of a leaf, with its slice where the pair holds a part of it, and its shape."""
    key, bounds = (pair.left, pair.right)[side], pair.bounds[side]
    shape = tuple(proposal.ports[side].leaves[key].shape)
    recurring = pair.shapes[side] != shape
    index = part_index(bounds, pair.shapes[side], shape) if recurring else _slice_text(bounds, shape)
    return f"{key.path}{_slice_text(bounds, pair.shapes[side]) if index is None else index} {list(shape)}"


def _slice_text(bounds: Bounds, shape: Sequence[int]) -> str:
    if bounds == tuple((0, size) for size in shape):
        return ""
    parts = [
        ":" if (start, stop) == (0, size) else str(start) if stop - start == 1 else f"{start}:{stop}"
        for (start, stop), size in zip(bounds, shape, strict=True)
    ]
    return f"[{', '.join(parts)}]"


def describe_layout(pair: LeafPair, proposal: Proposal) -> str:
    """The layout conversion from the left leaf to the right one; empty where they are stored in the same way."""
    words = []
    left, right = (
        tuple(port.leaves[key].shape) for port, key in zip(proposal.ports, (pair.left, pair.right), strict=True)
    )
    if pair.element_map is None:
        words.append("unknown")
    else:
        found = canonical_layouts(*within_parts(pair.element_map, pair, (left, right)))
        both = zip(proposal.ports, found or (), strict=found is not None)
        words += [f"{port.name}: {one}" for port, one in both if one != Identity()] if found else ["rearranged"]
    if pair.shift:
        words.append(f"{pair.shift:+g}")
    return ", ".join(words)


def row_cells(inferred: InferredLayers) -> Iterator[tuple[str, ...]]:
    """Cells of a table with one line per layer: path and kind, both scopes, layouts, and evidence."""
    proposal = inferred.proposal
    names = [port.name for port in proposal.ports]
    for row in inferred.rows:
        if row.function == ONLY:
            continue  # it says of the row before that one port alone has it
        pairs = [proposal.pairs[number] for number in row.pairs]
        text = dict.fromkeys(describe_layout(pair, proposal) for pair in pairs)
        parts = any(
            leaf_slice(pair, proposal, side).partition(" ")[0].endswith("]") for pair in pairs for side in (0, 1)
        )
        layouts = "; ".join([*filter(None, text), *(["in parts"] if parts else [])])
        known = Counter(EVIDENCE_WORDS[pair.evidence] for pair in pairs)
        several = ", ".join(f"{count} {way}" for way, count in known.items())
        how = several if len(known) > 1 else next(iter(known), "in one port only")
        scopes = (row.layer.scopes.get(name, "none") or "(the model)" for name in names)
        yield f"{row.layer.path} ({row.layer.kind})", *scopes, layouts, how
    yield from (cells for cells in leaf_cells(inferred) if cells[0] == "none")


def leaf_cells(inferred: InferredLayers) -> Iterator[tuple[str, ...]]:
    """Cells of a table with one line per leaf; the layer is `none` where no row holds the leaf."""
    proposal = inferred.proposal
    rows = {number: row for row in inferred.rows for number in row.pairs}
    for number, pair in enumerate(proposal.pairs):
        row = rows.get(number)
        title = f"{row.layer.path} ({row.layer.kind})" if row and number == min(row.pairs) else "" if row else "none"
        leaves = (leaf_slice(pair, proposal, side) for side in (0, 1))
        yield title, *leaves, describe_layout(pair, proposal), EVIDENCE_WORDS[pair.evidence]


def inference_remarks(inferred: InferredLayers) -> list[str]:
    """Lines on ambiguous pairs, pairs that contradict the names, and unmapped leaves with the reason."""
    proposal = inferred.proposal
    names = [port.name for port in proposal.ports]
    lines = []
    for numbers in proposal.name_conflicts:
        texts = [_says_which(proposal.pairs[number], proposal) for number in numbers]
        lines.append(
            f"Contradicts the names: {' and '.join(texts)}. The programs decide this pairing; "
            "check whether the names or the code is wrong."
        )
    groups: dict[int, list[LeafPair]] = {}
    for pair in proposal.pairs:
        if pair.interchange_group:
            groups.setdefault(pair.interchange_group, []).append(pair)
    for some in groups.values():
        if len(some) == 1:
            continue  # parts of one leaf, which lie in both ports in the same order
        text = ", ".join(leaf_slice(pair, proposal, 0).partition(" [")[0] for pair in some)
        lines.append(f"Interchangeable, with their layers: {text} ({names[0]}). Any order gives the same function.")
    for pair in proposal.pairs:
        if pair.evidence in WEAK_EVIDENCE:
            text = _says_which(pair, proposal)
            lines.append(f"Known {EVIDENCE_WORDS[pair.evidence]}: {text}. Neither position nor gradient decides it.")
    lines += [f"Not mapped: {line}." for line in (*inferred.problems, *_unpaired_lines(inferred))]
    return lines + [f"Note: {note}." for note in proposal.notes]


def _says_which(pair: LeafPair, proposal: Proposal) -> str:
    """Which leaf is which: `layer_0/query/kernel is layer_0/key/kernel`."""
    return " is ".join(leaf_slice(pair, proposal, side).partition(" [")[0] for side in (0, 1))


def names_caveat(inferred: InferredLayers) -> str:
    """A caveat for ports that are the same under a table that contradicts the names of leaves; empty where none does.

    With the names, as a checkpoint is read by them, such a port is another model.
    """
    proposal = inferred.proposal
    found = list(dict.fromkeys(number for numbers in proposal.name_conflicts for number in numbers))
    if not found:
        return ""
    texts = [_says_which(proposal.pairs[number], proposal) for number in found[:NAMED]]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    left, right = (port.name for port in proposal.ports)
    return (
        f"the leaves are paired against their names, of {left} and {right}: {', '.join(texts)}{more}; "
        "weights that are loaded by name make another function of it"
    )


def with_names_caveat(result: CaseResult, inferred: InferredLayers) -> CaseResult:
    """Add the caveat on names to the remarks of the check of the structure, which a run shows below its table."""
    caveat = names_caveat(inferred)
    first, *others = result.checks
    return replace(result, checks=(replace(first, remarks=(*first.remarks, caveat)), *others)) if caveat else result


def inference_caveat(inferred: InferredLayers) -> str:
    """A caveat for ports that differ under an inferred layer table."""
    pairs = inferred.proposal.pairs
    weak = sum(pair.evidence in WEAK_EVIDENCE for pair in pairs)
    more = f"; {weak} of its {len(pairs)} leaves are matched by shape, name or order alone" if weak else ""
    return f"The layer table was inferred{more}: a wrong row shows like this too. Look at it with equiv map."


def _unpaired_lines(inferred: InferredLayers) -> list[str]:
    names = [port.name for port in inferred.proposal.ports]
    return [f"{names[one.side]} {one.key}: {one.reason}" for one in inferred.unpaired]
