"""From a failing run to its page: the first screen alone names the layer, the side and the cause of a planted fault."""

import html
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import just
from rich.console import Console

from equiv.core.headline import summarise_run
from equiv.core.results import RunResult
from equiv.core.results_json import read_results
from equiv.frontends.cli.main import main
from equiv.report.findings.divergences import find_case_divergences
from equiv.report.html.page import render_page
from equiv.report.terminal.run import print_run

SOURCE = '''"""Two linear layers with a norm between them."""

from equiv.case import Case
from equiv.layers import linear


def haiku():
    import haiku as hk
    import jax

    def forward(x):
        x = hk.Linear(4, name="first")(x)
        x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)
        return hk.Linear(4, name="second")(x)

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="first")(x)
            x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)
            return nn.Dense(4, name="second")(x)

    return Model()


def nnx(rngs):
    import jax
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 4, rngs=rngs)
            self.second = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            x = self.first(x)
            x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)
            return self.second(x)

    return Model(rngs)


CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen, "nnx": nnx},
    batch={"x": "float32[5,4]"},
    layers=(
        linear("a", haiku="first", linen="first", nnx="first"),
        linear("b", haiku="second", linen="second", nnx="second"),
    ),
    steps=1,
    checks=CHECKS,
)
'''.replace("CHECKS", repr(just("outputs", "gradients")))

FIRST, EPS = "x = self.first(x)", "1e-3"
LINES = SOURCE.splitlines()


def line(code: str, after: str = "def nnx") -> int:
    """The line of a piece of code in the NNX builder, or below another line."""
    start = next(number for number, text in enumerate(LINES) if text.startswith(after))
    return next(number for number, text in enumerate(LINES, 1) if number > start and code in text)


FAULTS = {
    "eps": (
        EPS,
        "1e-5",
        [
            r"Tried cause with epsilon 0\.001 in place of 1e-05 in `?b`?\s?: same",
            rf"Where in .*haiku add with 0\.001 .*nnx add with 1e-05 .*cases/eps\.py:{line(EPS)}",
        ],
    ),
    "swapped": (
        FIRST,
        "x = self.second(x)",
        [
            "Tried cause with `?a`? in place of `?b`? there: same",
            rf"Where in .*dot_general with batch/x, a/kernel .*b/kernel .*swapped\.py:{line(FIRST)}",
        ],
    ),
    "dropped": (
        "self.second = nnx.Linear(4, 4, ",
        "self.second = nnx.Linear(4, 4, use_bias=False, ",
        [r"Possible cause leaf b/bias: nnx has no counterpart of it; same where it is 0"],
    ),
    "detached": (
        FIRST,
        "x = jax.lax.stop_gradient(self.first(x))",
        [
            r"Tried cause with no `?stop_gradient`? in `?a`?\s?: same",
            rf"Where in .*nnx stop_gradient .*cases/detached\.py:{line(FIRST)}",
            r"Still equal structure, outputs;",
        ],
    ),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run over a copy of the case for every fault; `equiv run --html`."""
    folder = tmp_path_factory.mktemp("faults")
    for name, (old, new, _) in FAULTS.items():
        head, builder, body = SOURCE.partition("def nnx")
        assert old in body
        (folder / "cases").mkdir(exist_ok=True)
        (folder / "cases" / f"{name}.py").write_text(head + builder + body.replace(old, new, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran = CliRunner().invoke(main, ["run", "cases", "--html"])
    assert ran.exit_code == 1
    assert ran.stderr.endswith("results: reports/results.json\nreport: reports/parity.html\n")
    return folder / "reports"


@pytest.fixture(scope="module")
def result(reports: Path) -> RunResult:
    return read_results(reports / "results.json")


def first_screen(result: RunResult, name: str) -> str:
    """The words above the matrix on the page of one case."""
    cases = tuple(case for case in result.cases if case.name == name)
    verdict, headline = summarise_run(cases)
    text = render_page([replace(result, cases=cases, verdict=verdict, headline=headline)])
    body = text[text.index("<main>") : text.index('id="matrix"')]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_screen_names_the_side_and_the_cause(result: RunResult, name: str):
    """And the place: the layer or the line."""
    text = first_screen(result, name)
    assert "Not the same: 1 of 2 comparisons differs." in text
    assert "Likely wrong haiku and linen agree here and only nnx differs: look at nnx." in text
    for words in FAULTS[name][2]:
        assert re.search(words, text), text


@pytest.mark.parametrize(("name", "parts"), [("eps", "add"), ("swapped", "dot_general"), ("detached", "mul")])
def test_the_way_through_the_network_parts_where_the_fault_is(result: RunResult, name: str, parts: str):
    """Also said on the first screen."""
    assert re.search(rf"Along the network .*; they differ from {parts}", first_screen(result, name))


def test_the_candidate_without_a_fault_is_the_same(result: RunResult):
    """And has neither a way nor equations that differ."""
    for case in result.cases:
        assert case.verdicts == {"linen": "same", "nnx": "different"}
        assert all(not check.intermediates for check in case.checks if check.candidate == "linen")


def test_no_place_of_the_machine_is_in_the_results(reports: Path):
    """They are read elsewhere."""
    text = (reports / "results.json").read_text()
    assert "site-packages" not in text
    assert str(reports.parent) not in text
    assert '"file": "cases/eps.py"' in text


def test_the_results_stay_small(reports: Path):
    """Sources, spreads and ways included: less than 150 kB a case that fails everywhere."""
    assert (reports / "results.json").stat().st_size < 150_000 * len(FAULTS)


@pytest.mark.parametrize(
    ("name", "cause"), [("eps", "with epsilon 0.001 in place of 1e-05"), ("swapped", "`a` in place")]
)
def test_the_terminal_says_place_and_cause_below_the_verdict(result: RunResult, name: str, cause: str):
    cases = tuple(case for case in result.cases if case.name == name)
    verdict, headline = summarise_run(cases)
    file = StringIO()
    print_run(replace(result, cases=cases, verdict=verdict, headline=headline), Console(file=file, width=100))
    lines = file.getvalue().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ Not the same"))
    assert lines[at + 1].startswith("  where ")
    assert f"cases/{name}.py:" in lines[at + 1]
    assert lines[at + 2].startswith("  tried ")
    assert cause in lines[at + 2]


def test_the_terminal_says_the_place_of_every_candidate(result: RunResult):
    file = StringIO()
    print_run(result, Console(file=file, width=100))
    lines = file.getvalue().splitlines()
    located = [one for one in result.cases for who in one.candidates if find_case_divergences(one, who)]
    assert len(located) > 1
    assert sum(line.startswith("  where ") for line in lines) == len(located)
    assert sum(line.startswith("  next  equiv locate") for line in lines) == 1
