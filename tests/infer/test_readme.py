"""The example in `equiv/infer/README.md` is run: what the text shows is what comes out."""

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from infer_ports import asked, build

import equiv
from equiv.infer.dataflow.blocks import AxisCuts
from equiv.infer.dataflow.port_graph import read_port
from equiv.infer.matching.by_gradient import GradientMatcher
from equiv.infer.matching.colour_refinement import Palette, refine_colours
from equiv.infer.matching.match import Matching, group_by_colour, match_leaves
from equiv.infer.matching.propose import propose
from equiv.infer.matching.splits import find_cuts
from equiv.infer.table.case_writer import _row_lines
from equiv.infer.table.rows import infer_rows

TEXT = (Path(equiv.__file__).parent / "infer" / "README.md").read_text()
BATCH = {"x": "float32[5,4]"}


def block(language, number):
    """The lines of a code block of the text."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[number].rstrip().split("\n")


@cache
def example():
    """Both ports, their graphs, whole and in parts, and one batch."""
    models = {}
    exec(compile("\n".join(block("python", 0)), "README.md", "exec"), models)
    request, batch = asked(BATCH)
    ports = build("linen", models["Left"], BATCH), build("nnx", models["Right"], BATCH)
    whole = read_port(ports[0], request), read_port(ports[1], request)
    cuts = find_cuts(whole)
    parts = whole[0].cut(cuts[0]), whole[1].cut(cuts[1])
    return SimpleNamespace(request=request, batch=batch, ports=ports, whole=whole, cuts=cuts, parts=parts)


def node_name(graph, node):
    """A leaf's path, with the columns of a part; or a batch entry or output."""
    if node >= len(graph.blocks):
        return (*graph.dataflow.inputs, "output")[node - len(graph.blocks)]
    (start, stop), size = graph.blocks[node].bounds[-1], graph.shape(node)[-1]
    return graph.key(node).path + ("" if stop - start == size else f"[:, {start}:{stop}]")


def use_lines(graph):
    """One line for each use: the leaf, how it is used, in which order its elements are read, and after which uses."""
    found = []
    for place, node in enumerate(graph.use_graph.owners):
        before = ", ".join(node_name(graph, graph.use_graph.owners[one]) for one in graph.use_graph.predecessors[place])
        words = [node_name(graph, node), "", ""]
        if node < len(graph.blocks):
            (use,) = graph.use_graph.uses[node]
            words[1] = use.label + (f" {use.shift:+g}" if use.shift else "")
            words[2] = f"{use.access.start}: " + ", ".join(f"{one.size} by {one.stride}" for one in use.access.digits)
        found.append(f"{words[0]:<20}{words[1]:<13}{words[2]:<19}{before}".rstrip())
    return found


def test_the_uses_are_those_of_the_text():
    graphs = example()
    assert block("text", 0) == use_lines(graphs.whole[0])
    assert block("text", 1) == use_lines(graphs.whole[1])
    assert block("text", 2) == use_lines(graphs.parts[1])
    assert graphs.cuts == ({}, {1: (AxisCuts(), AxisCuts((4, 8)))})


def test_the_colours_and_distances_are_those_of_the_text():
    """Position leaves one tie of three; the distances are those of the gradients, relative to the largest."""
    graphs = example()
    fresh = Matching((graphs.parts[0].use_graph, graphs.parts[1].use_graph))
    colours = refine_colours(fresh.anchored(), Palette())
    groups = [
        [[node_name(graph, node) for node in some] for graph, some in zip(graphs.parts, tie, strict=True)]
        for tie in group_by_colour(fresh, colours)
    ]
    assert sorted(map(len, (left for left, _ in groups))) == [1, 3]
    matching = match_leaves(fresh.use_graphs, ())
    (tie,) = (tie for tie in group_by_colour(matching, refine_colours(matching.anchored(), Palette())))
    matcher = GradientMatcher(graphs.parts, graphs.batch, lambda tie: [])
    left, right = (matcher._gradients(matching, side, [tie]) for side in (0, 1))
    scale = max(np.linalg.norm(one) for one in (*left.values(), *right.values()))
    lines = [f"{'':<20}" + "".join(f"{node_name(graphs.parts[1], two):<24}" for two in tie[1]).rstrip()]
    for one in sorted(tie[0], key=lambda node: ("query", "key", "value").index(graphs.parts[0].key(node).path[:-7])):
        row = [np.linalg.norm(left[one] - right[two]) / scale for two in tie[1]]
        shown = ["0" if distance < 1e-6 else f"{distance:.2f}" for distance in row]
        lines.append(f"{node_name(graphs.parts[0], one):<20}" + "".join(f"{text:<24}" for text in shown).rstrip())
    assert block("text", 3) == lines


def test_the_table_is_that_of_the_text():
    graphs = example()
    rows, problems = infer_rows(propose(graphs.ports, graphs.request, graphs.batch))
    assert problems == ()
    assert block("none", 0) == [line.removeprefix("        ") for row in rows for line in _row_lines(row)]


def test_every_file_that_the_text_names_is_there():
    folder = Path(equiv.__file__).parent
    named = set(re.findall(r"`((?:dataflow|matching|table)/\w+\.py|\w+\.py)`", TEXT)) - {"attention.py"}
    assert {name for name in named if not (folder / "infer" / name).is_file()} == set()
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert {name for name in re.findall(r"`(test_\w+)`", TEXT) if f"def {name}(" not in tests} == set()
