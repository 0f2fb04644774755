"""The terms that the page uses, each with its meaning in one line."""

from equiv.core.checks import CHECK_KINDS

GLOSSARY = (
    ("reference, candidate", "the port taken as correct; any other port, compared with it on the same variables"),
    ("error ÷ budget", "1 is the limit; the budget is the largest difference that rounding explains in this run"),
    *((kind.name, kind.question) for kind in CHECK_KINDS),
    ("proved", "the same operations on the same inputs; holds for every input"),
    ("proved modulo", "the same after named rewrites that hold in real arithmetic, listed with their conditions"),
    ("exact", "bitwise equal on every probe"),
    ("float64", "equal within rounding when both programs run in float64, and within the budget in their own dtype"),
    ("rounding", "within the budget in the programs' own dtype; a float64 run was not possible, for the reason given"),
    ("expected", "differs by exactly the known difference that the case declares"),
    ("statistical", "all random draws over layers and steps are different, as they must be"),
    ("refuted", "the difference is larger than rounding explains"),
    ("unidentifiable", "no probe can decide whether the ports are equal here"),
    ("vacuous", "nothing was compared, or all values are zero"),
    ("blocked", "not checked, because an earlier check failed"),
    ("not run", "not checked on this machine, for the reason given"),
    ("probe", "the inputs of a run: variables and batch, every leaf randomised; cold: with freshly initialised state"),
    ("mutant", "a candidate with a bug planted on purpose; killed if a check notices it, as it should"),
    ("ulp", "unit in the last place: the distance to the next representable number of the dtype"),
)
"""Terms and meanings, in the order in which a reader meets them."""
