"""The words that the page uses, each with its meaning in a line."""

WORDS = (
    ("reference, candidate", "the port whose variables all share; every other port, compared with it"),
    ("error ÷ budget", "1 is the limit; the budget is how far rounding can explain a difference, derived from the run"),
    ("proved", "the same operations on the same inputs: holds for every input"),
    ("proved modulo", "the same up to named rewrites of real arithmetic, listed with their conditions"),
    ("exact", "bit for bit on every probe"),
    ("float64", "both programs agree in float64 to its rounding, and natively within the budget"),
    ("rounding", "natively within the budget; there is no float64 run, and it is said why"),
    ("expected", "differs exactly by the formula that the case states"),
    ("statistical", "random draws differ wherever they must"),
    ("refuted", "no rounding explains the difference"),
    ("unidentifiable", "no probe can tell"),
    ("vacuous", "nothing was compared, or everything is zero"),
    ("blocked", "an earlier check failed, so this one could not be asked"),
    ("not run", "something was missing here, and it is said what"),
    ("probe", "the variables and batch on which programs run, every leaf randomised; cold: from fresh state"),
    ("planted fault", "a mistake made on purpose, to see that the checks notice it"),
    ("ulp", "unit in the last place: the distance to the next number of the dtype"),
)
"""Words and meanings, in the order in which a reader meets them."""
