"""Inference without names: share of leaves right, seconds, and how both grow with the model.

Run it with `python tests/benchmarks/bench_infer.py [LAYERS...] [--wide]`. Every leaf of both ports is named by random
letters, in random order. Sizes are full (ResNet-50 has 25 million elements), except the width of deep transformers;
`--wide` adds one of GPT-2's size. Printed per pair of ports: leaves that are right of those that can be told, how they
are known, those that are interchangeable, and CPU seconds (so that a loaded machine matters less) to build both ports,
to trace them, to match their leaves, and to write the rows of the layer table; then the same for transformers of
growing depth, with the exponents of growth of tracing and of matching. Last: query and key exchanged in name.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass

import infer_models
from infer_ports import asked, build, exchanged, renamed

from equiv.infer.dataflow import port_graph as reading
from equiv.infer.matching.propose import propose
from equiv.infer.table.rows import infer_rows

TOKENS = {"x": "int32[2,5]:32"}
MODELS = (
    ("resnet", "ResNet-50", {"x": "float32[2,64,64,3]"}, {"width": 64}),
    ("transformer", "transformer, 48 layers", TOKENS, {"layers": 48}),
    ("lstm", "LSTM", {"x": "float32[4,2,5]"}, {}),
    ("stack", "scan-stacked against unrolled, 12 layers", {"x": "float32[2,5]"}, {"layers": 12}),
)
WIDE = {"layers": 12, "width": 768, "heads": 12}
GATES = "igfo"


@dataclass
class Clock:
    """CPU seconds of a function, all calls of it together."""

    function: object
    seconds: float = 0.0

    def __call__(self, *arguments):
        started = time.process_time()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.process_time() - started


@dataclass(frozen=True)
class Measured:
    """One pair of ports: correct leaves of all identifiable ones, how they are known, and CPU seconds."""

    good: int
    total: int
    alike: int
    known: dict[str, int]
    build: float
    trace: float
    match: float
    rows: float
    wall: float

    def __str__(self) -> str:
        known = ", ".join(f"{count} by {evidence}" for evidence, count in self.known.items())
        return (
            f"{self.good} of {self.total} right ({known}; {self.alike} interchangeable); CPU seconds: build "
            f"{self.build:.2f}, trace {self.trace:.2f}, match {self.match:.2f}, rows {self.rows:.2f}; wall without "
            f"building {self.wall:.2f}"
        )


def port(model, library, batch, sizes):
    """A port and the CPU seconds to build it."""
    builder, clock = getattr(infer_models, f"{model}_{library}"), Clock(build)
    if library == "nnx":
        return clock(library, lambda rngs: builder(rngs, **sizes), batch), clock.seconds
    return clock(library, lambda: builder(**sizes), batch), clock.seconds


def expected(model, library, left, part, right_part):
    """The right leaf that a left leaf, or a part of one, is; for a packed right leaf with its first column."""
    if model == "lstm" and left.startswith("lstm"):
        gate, hidden = GATES[part[-1][0] // 6], left.endswith("b") or part[0][0] > 0
        leaf = "bias" if left.endswith("b") else "kernel"
        if library == "linen":
            return f"cell/{'h' if hidden else 'i'}{gate}/{leaf}"
        return f"rnn.cell.dense_{'h' if hidden else 'i'}.{leaf}", "ifgo".index(gate) * 6
    if model == "stack" and "layer_stack" in left:
        _, layer, leaf = left.split("/")
        leaf = {"w": "kernel", "b": "bias"}[leaf]
        return f"blocks.{part[0][0]}.{layer}.{leaf}" if library == "nnx" else f"blocks/{layer}/{leaf}"
    if model in ("lstm", "stack"):
        scope, leaf = left.split("/")
        return f"{scope}{'/' if library == 'linen' else '.'}{ {'w': 'kernel', 'b': 'bias'}[leaf] }"
    return getattr(infer_models, f"{model}_truth")(left, library)


def measure(model, library, batch, sizes):
    """One pair of ports, the left one in Haiku."""
    (left, one), (right, two) = port(model, "haiku", batch, sizes), port(model, library, batch, sizes)
    (nameless, ours), (other, theirs) = renamed(left, 1), renamed(right, 2)
    tracing, matching, writing = Clock(reading._trace_forward), Clock(propose), Clock(infer_rows)
    started = time.perf_counter()
    reading._trace_forward, kept = tracing, reading._trace_forward
    try:
        proposal = matching((nameless, other), *asked(batch))
    finally:
        reading._trace_forward = kept
    writing(proposal)
    wall = time.perf_counter() - started
    old = {new: key.path for names in (ours, theirs) for key, new in names.items()}
    good = 0
    for pair in proposal.pairs:
        wanted = expected(model, library, old[pair.left], *pair.bounds)
        got = old[pair.right]
        good += wanted == (got if isinstance(wanted, str) else (got, pair.bounds[1][-1][0]))
    return Measured(
        good,
        len(proposal.pairs) + sum(not one.dead for one in proposal.unpaired),
        sum(pair.interchange_group > 0 for pair in proposal.pairs),
        dict(Counter(pair.evidence for pair in proposal.pairs)),
        one + two,
        tracing.seconds,
        matching.seconds - tracing.seconds,
        writing.seconds,
        wall,
    )


def grown(depths) -> None:
    """Transformers of growing depth."""
    before = None
    for layers in depths:
        found = measure("transformer", "linen", TOKENS, {"layers": layers})
        exponents = ""
        if before is not None:
            longer = math.log(found.total / before.total)
            growth = (math.log(getattr(found, name) / getattr(before, name)) / longer for name in ("trace", "match"))
            exponents = "; exponents: trace {:.2f}, match {:.2f}".format(*growth)
        print(f"{layers} layers: {found}{exponents}", flush=True)
        before = found


def crossed() -> None:
    """Query and key of Linen's attention under each other's name."""
    left, right = port("transformer", "haiku", TOKENS, {})[0], port("transformer", "linen", TOKENS, {})[0]
    proposal = propose((left, exchanged(right, "query", "key")), *asked(TOKENS))
    told = [tuple(proposal.pairs[at].left.path for at in pair) for pair in proposal.name_conflicts]
    print(
        f"query and key exchanged in name, 2 layers: {len(told)} pairs of leaves said to be against their names: {told}"
    )


def main() -> None:
    """Measure and print."""
    depths = [int(size) for size in sys.argv[1:] if size.isdigit()] or [6, 12, 24, 48, 96]
    measure("transformer", "linen", TOKENS, {"layers": 1})
    for model, title, batch, sizes in MODELS:
        for library in ("linen", "nnx"):
            if model == "stack" and library == "linen":
                continue
            print(f"{title}, haiku-{library}: {measure(model, library, batch, sizes)}", flush=True)
    grown(depths)
    crossed()
    if "--wide" in sys.argv:
        print(f"transformer, 12 layers of width 768: {measure('transformer', 'linen', TOKENS, WIDE)}")


if __name__ == "__main__":
    main()
