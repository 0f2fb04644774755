"""Inference without names: share of leaves right, seconds, and how both grow with the model.

Run it with `python tests/bench_infer.py [LAYERS...]`. Every leaf of both ports is called by random letters in random
order. Printed per pair of ports: leaves that are right of those that can be told, how they are known, and CPU seconds
(so that a loaded machine matters less) to build both ports, to trace and walk both programs, and for all of inference,
with the ratio of inference to building; then the same for transformers of growing depth, with the exponent of growth.
"""

import math
import sys
import time
from collections import Counter

import infer_models
from infer_ports import asked, build, renamed

from equiv.infer.propose import propose
from equiv.infer.reading import read

TOKENS = {"x": "int32[2,5]:32"}
MODELS = (
    ("resnet", "ResNet-50", {"x": "float32[2,64,64,3]"}, {}),
    ("transformer", "transformer, 48 layers", TOKENS, {"layers": 48}),
    ("lstm", "LSTM", {"x": "float32[4,2,5]"}, {}),
    ("stack", "scan-stacked against unrolled, 12 layers", {"x": "float32[2,5]"}, {"layers": 12}),
)
GATES = "igfo"


def clocked(function, *arguments):
    """What a function returns, and its CPU seconds."""
    started = time.process_time()
    returned = function(*arguments)
    return returned, time.process_time() - started


def port(model, library, batch, sizes):
    """A port and the CPU seconds to build it."""
    builder = getattr(infer_models, f"{model}_{library}")
    if library == "nnx":
        return clocked(build, library, lambda rngs: builder(rngs, **sizes), batch)
    return clocked(build, library, lambda: builder(**sizes), batch)


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
    """Names, counts and CPU seconds of one pair of ports, the left one in Haiku."""
    (left, one), (right, two) = port(model, "haiku", batch, sizes), port(model, library, batch, sizes)
    (left, ours), (right, theirs) = renamed(left, 1), renamed(right, 2)
    request, entries = asked(batch)
    _, reading = clocked(lambda: (read(left, request), read(right, request)))
    started = time.perf_counter()
    proposal, spent = clocked(propose, (left, right), request, entries)
    wall = time.perf_counter() - started
    old = {new: key.path for names in (ours, theirs) for key, new in names.items()}
    good = 0
    for pair in proposal.pairs:
        wanted = expected(model, library, old[pair.left], *pair.bounds)
        got = old[pair.right]
        good += wanted == (got if isinstance(wanted, str) else (got, pair.bounds[1][-1][0]))
    total = len(proposal.pairs) + sum(not one.dead for one in proposal.left)
    known = dict(Counter(pair.evidence for pair in proposal.pairs))
    return good, total, known, one + two, reading, spent, wall


def main() -> None:
    """Measure and print."""
    depths = [int(size) for size in sys.argv[1:]] or [6, 12, 24, 48, 96]
    measure("transformer", "linen", TOKENS, {"layers": 1})
    for model, title, batch, sizes in MODELS:
        for library in ("linen", "nnx"):
            if model == "stack" and library == "linen":
                continue
            good, total, known, built, reading, spent, wall = measure(model, library, batch, sizes)
            print(
                f"{title}, haiku-{library}: {good} of {total} right, {known}; CPU seconds: build {built:.2f}, "
                f"read {reading:.2f}, infer {spent:.2f} ({spent / built:.2f} x build), wall {wall:.2f}"
            )
    before = None
    for layers in depths:
        good, total, _, built, reading, spent, wall = measure("transformer", "linen", TOKENS, {"layers": layers})
        exponent = ""
        if before is not None:
            exponent = f", exponent {math.log(spent / before[1]) / math.log(total / before[0]):.2f}"
        print(
            f"{layers} layers: {good} of {total} right; CPU seconds: build {built:.2f}, read {reading:.2f}, "
            f"infer {spent:.2f} ({spent / built:.2f} x build), wall {wall:.2f}{exponent}"
        )
        before = total, spent


if __name__ == "__main__":
    main()
