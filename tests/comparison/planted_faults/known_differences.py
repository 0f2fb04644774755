"""Known differences that are wrong, stale or missing."""

from comparison.planted_fault import STEP, TRAIN_ONLY, fault

KNOWN = 'known_differences=zero_debias("block.norm", decay=0.99)'
STALE = (
    'known_differences=(*zero_debias("block.norm", decay=0.99), __import__("equiv.core.case").case.KnownDifference('
    '"haiku", "linear/kernel", "the same", lambda v, _: v["linear/kernel"], lambda v, _: v["linear/kernel"], ""))'
)

FAULTS = (
    fault(
        "known_difference_with_wrong_decay",
        "batch_norm/linen",
        (KNOWN, KNOWN.replace("0.99", "0.9")),
        "train",
        f"{STEP}block.norm/mean",
        TRAIN_ONLY,
    ),
    fault(
        "known_difference_is_stale",
        "batch_norm/nnx",
        (KNOWN, STALE),
        "train",
        f"{STEP}linear/kernel",
        f"{TRAIN_ONLY} state",
    ),
    fault(
        "known_difference_is_missing",
        "batch_norm/linen",
        (KNOWN, "known_differences=()"),
        "train",
        f"{STEP}block.norm/var",
        TRAIN_ONLY,
    ),
)
