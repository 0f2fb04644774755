"""Inference on the libraries' own layers, with every name replaced by random letters."""

import re
from collections import Counter
from functools import cache

import infer_models
import pytest
from infer_ports import build, exchanged, found, inferred, paths, renamed, shuffled_back

BATCH = {
    "resnet": {"x": "float32[2,32,32,3]"},
    "transformer": {"x": "int32[2,5]:32"},
    "lstm": {"x": "float32[4,2,5]"},
    "stack": {"x": "float32[2,5]"},
}
SIZES = {"resnet": {"blocks": (2, 1, 1, 1), "width": 4}}


@cache
def port(model, library):
    builder, sizes = getattr(infer_models, f"{model}_{library}"), SIZES.get(model, {})
    if library == "nnx":
        return build(library, lambda rngs: builder(rngs, **sizes), BATCH[model])
    return build(library, lambda: builder(**sizes), BATCH[model])


@cache
def nameless(model, left, right):
    """The map of two ports with random names, by the real names."""
    (one, ours), (two, theirs) = renamed(port(model, left), 1), renamed(port(model, right), 2)
    proposal = inferred(one, two, BATCH[model])
    return proposal, shuffled_back(proposal, ours, theirs)


def truth(model, library):
    of = getattr(infer_models, f"{model}_truth")
    sizes = {"blocks": SIZES[model]["blocks"]} if model == "resnet" else {}
    wanted = {key.path: of(key.path, library, **sizes) for key in port(model, "haiku").leaves}
    return {path: place for path, place in wanted.items() if place is not None}


@pytest.mark.quick(2)
@pytest.mark.parametrize("library", ["linen", "nnx"])
@pytest.mark.parametrize("model", ["resnet", "transformer"])
def test_every_leaf_is_found_without_names(model, library):
    """ResNet with batch norm, and a transformer with the libraries' own attention: all leaves, none wrong."""
    proposal, pairs = nameless(model, "haiku", library)
    assert pairs == truth(model, library)
    assert {left.dead for left in proposal.unpaired} <= {True}
    assert not proposal.name_conflicts


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_resnet_needs_no_numbers(library):
    """Place alone decides: nothing is run, so that size does not matter."""
    proposal, _ = nameless("resnet", "haiku", library)
    assert Counter(pair.evidence for pair in proposal.pairs) == {"position": len(proposal.pairs)}


def test_statistics_of_haiku_alone_are_said_to_do_nothing():
    """`hidden` and `counter` are read in train mode only, and Flax has none."""
    proposal, _ = nameless("resnet", "haiku", "nnx")
    assert len(proposal.unpaired) == 4 * sum("mean_ema/average" in key.path for key in port("resnet", "haiku").leaves)
    assert {left.reason for left in proposal.unpaired} == {"no output depends on it in eval mode"}


@pytest.mark.parametrize("model", ["resnet", "transformer"])
def test_left_to_right_is_the_inverse_of_right_to_left(model):
    """Which port is the reference does not matter."""
    there, back = (nameless(model, *libraries)[1] for libraries in (("linen", "nnx"), ("nnx", "linen")))
    assert {right: left for left, right in there.items()} == back


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_query_named_key_is_mapped_by_function_and_reported(library):
    """The libraries' own attention with two names exchanged: the map follows the function, in every layer."""
    right = exchanged(port("transformer", library), "query", "key")
    proposal = inferred(port("transformer", "haiku"), right, BATCH["transformer"])
    words = {"query": "key", "key": "query"}
    wanted = {
        path: re.sub(r"\b(query|key)\b", lambda found: words[found[1]], place)
        for path, place in truth("transformer", library).items()
    }
    assert paths(proposal) == wanted
    told = {frozenset(proposal.pairs[at].left.path.split("/", 1)[1] for at in pair) for pair in proposal.name_conflicts}
    assert told == {frozenset({f"attend/query/{leaf}", f"attend/key/{leaf}"}) for leaf in "wb"}
    assert len(proposal.name_conflicts) == 2 * 2


GATES = {"i": 0, "g": 1, "f": 2, "o": 3}


def test_gates_of_an_lstm_are_distinguished_without_names():
    """Haiku packs i, g, f, o for input and hidden in one leaf; Linen has a leaf for each, and the 1 of f in it."""
    proposal, _ = nameless("lstm", "haiku", "linen")
    old = {key: key.path for key in port("lstm", "linen").leaves}
    names = {new: old[key] for key, new in renamed(port("lstm", "linen"), 2)[1].items()}
    for pair in proposal.pairs:
        name = names[pair.right]
        if name.startswith("head"):
            continue
        side, gate = name.split("/")[1]
        columns = (GATES[gate] * 6, GATES[gate] * 6 + 6)
        rows = () if "bias" in name else (((0, 5),) if side == "i" else ((5, 11),))
        assert pair.bounds[0] == (*rows, columns), name
        assert pair.shift == (name == "cell/hf/bias"), name
    assert len(proposal.pairs) == 14
    assert not proposal.unpaired


def test_packed_gates_in_another_order_are_distinguished():
    """NNX packs i, f, g, o in two kernels: parts of leaves on both sides, all of them placed."""
    proposal, _ = nameless("lstm", "haiku", "nnx")
    columns = {
        pair.bounds[0][-1][0] // 6: pair.bounds[1][-1][0] // 6 for pair in proposal.pairs if len(pair.bounds[0]) < 3
    }
    assert columns == {0: 0, 1: 2, 2: 1, 3: 3}
    assert len(proposal.pairs) == 14
    assert not proposal.unpaired


@pytest.mark.parametrize("library", ["haiku", "linen"])
def test_layers_of_a_scan_are_unstacked_for_an_unrolled_port(library):
    """Item i of every stacked leaf is the leaf of layer i."""
    pairs = found(inferred(port("stack", library), port("stack", "nnx"), BATCH["stack"]))
    stacked = {
        (left, part[0][0]): right
        for (left, part), (right, _) in pairs.items()
        if "head" not in left and "first" not in left
    }
    assert len(stacked) == 12
    for (left, item), right in stacked.items():
        layer = "wide" if "wide" in left else "narrow"
        assert right.startswith(f"blocks.{item}.{layer}.")


def test_two_scans_are_mapped_without_unrolling():
    """Stacked leaves on both sides stay whole."""
    proposal = inferred(port("stack", "haiku"), port("stack", "linen"), BATCH["stack"])
    assert paths(proposal)["__layer_stack_no_per_layer/wide/w"] == "blocks/wide/kernel"
    assert len(proposal.pairs) == 8
