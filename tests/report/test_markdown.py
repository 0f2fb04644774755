"""A run as a Markdown document: its sections, in a fixed order, and every hostile name as text."""

import re
from dataclasses import replace

import pytest
from report.sample_runs import DEVIATION, LEAF, OFF, RUNS, broken, case, check, result, section, shown

from equiv.core.results import RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.markdown import render_markdown


def test_errata_layers_and_environment_appear():
    text = render_markdown([result(case("a", deviations=(DEVIATION,), leaves=(LEAF,)))])
    (row,) = [line for line in section(text, "Errata of the guides").splitlines() if line.startswith("| a ")]
    assert [part.strip() for part in re.split(r"(?<!\\)\|", row)][1:-1] == [
        "a",
        "nnx",
        "`self.a.value \\| 1`",
        "raises &lt;Error>",
        "`self.a[...]`",
        "flax 0.12.8",
    ]
    layers = section(text, "Layers")
    assert "### a: The lesson of a." in layers
    (row,) = [line for line in layers.splitlines() if line.startswith("| a/kernel ")]
    assert [part.strip() for part in row.split("|")][1:-1] == [
        "a/kernel",
        "float32[2, 3]",
        "\\~/a/\\~/w (params)",
        NOT_APPLICABLE,
        "a.kernel (params)",
    ]
    assert re.search(r"^\| jax +\| 1\.2\.3 +\|$", section(text, "Environment"), re.MULTILINE)


def test_several_results_stand_in_one_document_in_the_order_given():
    runs = [RUNS["different"], RUNS["same"]]
    text = render_markdown(runs)
    assert text == render_markdown(runs[:1]) + "\n" + render_markdown(runs[1:])
    assert re.findall("^# (.)", text, re.MULTILINE) == ["✗", "✓"]
    assert text.endswith("|\n")


def test_markdown_is_a_pure_function_of_the_results():
    for run in RUNS.values():
        assert (
            render_markdown([run]).encode()
            == render_markdown([decode_results(encode_results(run), "results")]).encode()
        )


HOSTILE = "a|b <script>alert(1)</script> & _c_ **d** ~~e~~ [f](g) [bold]h[/] ``` \\\n\n# i"


@pytest.fixture
def hostile() -> RunResult:
    finding = replace(OFF, place=HOSTILE, note=HOSTILE, reference=HOSTILE)
    whole = case(
        HOSTILE, check("outputs", finding), lesson=HOSTILE, reference=HOSTILE, leaves=(replace(LEAF, leaf=HOSTILE),)
    )
    return replace(
        result(whole, broken(HOSTILE, HOSTILE)),
        headline=HOSTILE,
        environment={HOSTILE: HOSTILE},
        problems=(HOSTILE,),
    )


def test_hostile_names_stay_text_in_markdown(hostile: RunResult):
    text = render_markdown([hostile])
    assert "<" not in text
    assert "&lt;script>alert(1)&lt;/script> &amp; \\_c\\_ \\*\\*d\\*\\* \\~\\~e\\~\\~ [f]\\(g)" in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]
    assert re.search(r"(?<!\\)`", text) is None
    assert section(text, "Not compared").count("\n- ") == 2
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_hostile_names_stay_text_in_the_terminal(hostile: RunResult):
    first, _, rest = HOSTILE.partition("\n")
    text = shown(hostile, width=10_000)
    assert text.count(first) >= 5
    assert "[bold]h[/]" in text
    assert rest.strip() in text


def test_code_in_backticks_stays_code():
    text = render_markdown(
        [result(case("a", lesson="Write `nnx.Param(x) # __call__ <b> a|b` in __init__.", leaves=(LEAF,)))]
    )
    assert "### a: Write `nnx.Param(x) # __call__ <b> a\\|b` in \\_\\_init\\_\\_.\n" in text
