"""Synthetic results for the tests of the HTML page: runs with checks, planted faults, timings and builders."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from named import output_named

from equiv.core.case_files import CaseFile, load_case
from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.headline import summarise_run
from equiv.core.results import (
    ULP_BINS,
    BuilderSource,
    CaseResult,
    CheckResult,
    DeviationResult,
    Finding,
    Intermediate,
    LeafResult,
    ProbeTrial,
    RunResult,
    Spread,
)
from equiv.core.selfcheck_results import FaultMatrix, FaultRow, MutantResult, Outcome
from equiv.core.timings import NO_DIFFERENCE, PHASES, SLOWER, CaseCosts, Growth, ProgramCost, Ratio, Timing
from equiv.core.verdict import check_grade, verdict_of

CASES = Path(__file__).parent.parent / "cases"
TWELVE = (
    "auto_encoder", "batch_norm", "counter", "custom_linear", "dropout", "lora", "mlp", "optimizer_adam", "rnn_scan",
    "scan_mlp", "scan_over_layers", "train_state_dropout",
)  # fmt: skip
WIDTHS = (10, 64, 256, 768, 784, 1024, 3072)
LIBRARIES = ("haiku", "linen", "nnx")
ENVIRONMENT = {
    "platform": "cpu",
    "device": "cpu",
    "jax": "0.10.2",
    "flax": "0.12.8",
    "dm-haiku": "0.0.17",
    "commit": "abc",
}
PARTED_PORTS = (
    FirstDifference(
        "haiku", "add", ("block.norm/var",), ("1e-05",),
        SourceLine("haiku/_src/batch_norm.py", 204, 32, "BatchNorm.__call__"),
        SourceLine("cases/batch_norm.py", 23), "model/block/batch_norm",
    ),
    FirstDifference(
        "nnx", "add", ("block.norm/var",), ("0.001",),
        SourceLine("flax/nnx/nn/normalization.py", 171, 18, "_normalize"), SourceLine("cases/batch_norm.py", 111),
    ),
)  # fmt: skip
REWRITES = {"sums in another order": "a+b+c in any order: values finite"}


def leaves(count: int, random: Random) -> tuple[LeafResult, ...]:
    """Make a leaf table with a path, a shape and sometimes a layout in each library."""
    made = []
    for index in range(count):
        layer, shape = f"block{index // 2}.linear{index}", (random.choice(WIDTHS), random.choice(WIDTHS))
        shape = shape if index % 2 == 0 else shape[:1]
        kind = ("w", "kernel", "kernel") if index % 2 == 0 else ("b", "bias", "bias")
        dotted = layer.replace(".", "/")
        places = {
            "haiku": f"model/{dotted}/{kind[0]} (params)",
            "linen": f"Block_{index // 2}/Dense_{index}/{kind[1]} (params)",
            "nnx": f"{layer}.{kind[2]} (params)",
        }
        layouts = {"haiku": "DropUnitAxes()"} if index % 5 == 4 else {}
        made.append(
            LeafResult(f"{layer}/{kind[1]}", shape, "float32", places, dict.fromkeys(LIBRARIES, shape), layouts)
        )
    return tuple(made)


def measured(place: str, random: Random, **fields: object) -> Finding:
    """A finding within its budget, with figures of its own."""
    ratio = random.uniform(1e-3, 0.3)
    budget = 10 ** Random(place).uniform(-9, -4)  # the reference's, whoever is compared with it
    found = Finding(
        place, "float64", error=ratio * budget, budget=budget, ratio=ratio, precision="float64", probe="0",
        reference=f"{random.uniform(-9, 9):.9g}", candidate=f"{random.uniform(-9, 9):.9g}", index=(1, 2), response=1e-9,
        depth=random.randrange(20, 900), output=output_named(place),
    )  # fmt: skip
    return replace(found, **fields)


def checks(candidate: str, table: tuple[LeafResult, ...], random: Random, proved: bool) -> Iterator[CheckResult]:
    """Every check of a candidate that is the same, by proof or by numbers."""

    def check(name: str, *findings: Finding) -> CheckResult:
        if proved and name not in ("structure", "randomness"):
            findings = tuple(replace(one, grade="proved modulo", rewrites=tuple(REWRITES)) for one in findings)
        return CheckResult(name, candidate, check_grade(findings), f"{len(findings)} places", findings)

    yield check("structure", *(Finding(f"leaf {leaf.leaf}", "exact", structure=leaf.leaf) for leaf in table))
    yield check("outputs", *(measured(f"{mode} __call__: output", random) for mode in ("eval", "train")))
    yield check("gradients", *(measured(f"gradient __call__: gradient {leaf.leaf}", random) for leaf in table))
    yield check("train", *(measured(f"train: {leaf.leaf}", random) for leaf in table))


def case(name: str, random: Random, count: int = 6, sources: dict[str, BuilderSource] | None = None) -> CaseResult:
    """A case whose two candidates are the same: the first by proof."""
    table = leaves(count, random)
    every = tuple(
        one for who in LIBRARIES[1:] for one in checks(who, table, random, proved=random.random() < 0.7 and count < 50)
    )
    verdicts = {who: verdict_of(tuple(one for one in every if one.candidate == who)) for who in LIBRARIES[1:]}
    trials = ProbeTrial("moved", (table[0].leaf,)), ProbeTrial("swapped", ("a", "b"), False, note="none shows it")
    return CaseResult(
        name, f"The lesson of `{name}`.", "a guide", "haiku", LIBRARIES[1:], verdicts, every, table,
        trials=trials, path=f"cases/{name}.py", sources=sources or {},
    )  # fmt: skip


def real(name: str, random: Random) -> CaseResult:
    """A case with the builders, lesson and errata of a real one, timed, and with planted faults."""
    loaded = load_case(CaseFile(name, CASES / f"{name}.py"))
    sources = {who: replace(one, file=f"cases/{name}.py") for who, one in loaded.sources.items()}
    errata = tuple(DeviationResult(**vars(one)) for one in loaded.case.deviations)
    return replace(
        case(name, random, 6, sources),
        lesson=loaded.lesson, guide=loaded.case.guide, deviations=errata, faults=faults(random), costs=costs(random),
    )  # fmt: skip


def faults(random: Random) -> FaultMatrix:
    """The outcomes of planted faults."""

    def other(who: str, kind: str) -> Outcome:
        return "unidentifiable" if (who, kind) == ("nnx", "stale state") else "equivalent"

    kinds = ("another eps", "swapped leaves", "dropped addition", "detached gradient", "stale state")
    rows = [
        FaultRow(who, kind, {"killed": random.randrange(1, 9), other(who, kind): 1}, {"outputs": 2, "train": 1})
        for who in LIBRARIES[1:]
        for kind in kinds
    ]
    missed = MutantResult(
        "nnx", "stale state", "train __call__", "state a/mean", "unidentifiable", reason="it is never read"
    )
    return FaultMatrix(tuple(rows), (missed,), ("gate order",))


def costs(random: Random, deep: bool = False) -> CaseCosts:
    """Timings of two programs in four ways of calling them."""
    ways = (("haiku", "jax.jit"), ("linen", "jax.jit"), ("nnx", "nnx.jit"), ("nnx", "split + jax.jit"))
    timings = []
    for backend, runner in ways:
        for program in ("forward", "train step"):
            for phase in PHASES:
                ratio = (
                    Ratio(value := random.uniform(0.9, 1.8), value * 0.97, value * 1.03) if backend != "haiku" else None
                )
                control = Ratio(1.0, 0.98, 1.02) if ratio else None
                claim = (SLOWER if ratio.low > 1.05 else NO_DIFFERENCE) if ratio else ""
                p50 = 10 ** random.uniform(-5, 0)
                timings.append(Timing(backend, program, runner, phase, 90, p50, p50, p50, ratio, control, claim=claim))
    growth = [
        Growth(backend, form, depth, phase, 1e-3 * (depth if form == "unrolled" else 1 + depth / 99), 40 * depth)
        for backend in LIBRARIES
        for form in ("unrolled", "scanned")
        for depth in (1, 4, 16, 64)
        for phase in ("compile", "dispatch")
    ]
    programs = (ProgramCost("nnx", "train step", "nnx.jit", 130, 80, 1e6, 2e6, 300_000, 0, True),)
    return CaseCosts(tuple(timings), programs, tuple(growth) if deep else ())


def parted(good: CaseResult) -> CaseResult:
    """The same case with another eps in its NNX port, as a run reports it."""
    line = next(
        one.line + offset
        for one in (good.sources["nnx"],)
        for offset, text in enumerate(one.text.splitlines())
        if "self.batchnorm(x)" in text
    )
    shades = ("0123456789" * 4, "9876543210" * 4)
    spread = Spread((), (9, 0, 0, 1, 5, 7, 30, *[0] * (len(ULP_BINS) - 6)), shades, (80, 256), (3.3, 2.3))
    off = measured(
        "eval __call__: output",
        Random(1),
        grade="refuted",
        ratio=4e9,
        error=0.0127,
        budget=3.19e-12,
        reference="-13.38",
        candidate="-13.36",
        note="no rounding explains this difference",
        first_differences=(
            PARTED_PORTS[0],
            replace(PARTED_PORTS[1], call_site=SourceLine("cases/batch_norm.py", line)),
        ),
        spread=spread,
    )
    trained = replace(off, place=f"train: {good.leaves[0].leaf}", spread=replace(spread, ratios=(9e9, 2e10, 5e10)))
    way = tuple(
        Intermediate(
            name,
            2e11 if lost else 0.0,
            0.1,
            lost,
            f"model/block/{module}",
            location=SourceLine("cases/batch_norm.py", 22 + lost),
        )
        for name, module, lost in (
            ("dot_general", "linear", False),
            ("add", "linear", False),
            ("add", "batch_norm", True),
        )
    )
    every = []
    for check in good.checks:
        if check.candidate == "nnx" and check.check == "outputs":
            check = replace(check, grade="refuted", findings=(off, *check.findings[1:]), intermediates=way)
        elif check.candidate == "nnx" and check.check == "train":
            check = replace(check, grade="refuted", findings=(trained, *check.findings[1:]))
        every.append(check)
    return replace(good, checks=tuple(every), verdicts={**good.verdicts, "nnx": "different"}, costs=None)


def run(*cases: CaseResult, **fields: object) -> RunResult:
    """A run over cases."""
    verdict, headline = summarise_run(cases)
    made = RunResult(verdict, headline, ENVIRONMENT, cases, "2026-01-02T03:04:05", 12.5, rewrites=REWRITES)
    return replace(made, **fields)


def twelve(failing: bool = True) -> RunResult:
    """Twelve cases, 24 comparisons, everything measured; in one of them the ports part."""
    random = Random(0)
    cases = {name: real(name, random) for name in TWELVE}
    cases["scan_over_layers"] = replace(cases["scan_over_layers"], costs=costs(random, deep=True))
    if failing:
        cases["batch_norm"] = parted(cases["batch_norm"])
    return run(*cases.values())


def large(comparisons: int = 200, count: int = 300) -> RunResult:
    """A run with this many comparisons of this many leaves."""
    random = Random(0)
    return run(*(case(f"model_{index}", random, count) for index in range(comparisons // 2)))
