"""The page as a text: a pure function, small, with the verdict first and everything that was not done said."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from pages import ENVIRONMENT, case, large, parted, real, run, twelve

from equiv.core.grades import Verdict
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.core.results_json import decode_results, encode_results, read_results
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.html.compressed import MAX_BLOCK_BYTES, Packer, strip_whitespace
from equiv.report.html.page import MAX_INLINE_BYTES, render_page
from equiv.report.html.plots.timing_plots import seconds_text

KILO = 1000


@cache
def text(failing: bool = True) -> str:
    """The page of 24 comparisons."""
    return render_page([twelve(failing)])


def good(name: str = "alike") -> CaseResult:
    """A small case that is the same."""
    return case(name, Random(0))


def single(name: str, check: str, finding: Finding, verdict: Verdict) -> CaseResult:
    """A case whose NNX port has one check with one finding."""
    whole = good(name)
    checks = tuple(
        CheckResult(check, "nnx", finding.grade, finding.note, (finding,))
        if (one.candidate, one.check) == ("nnx", check)
        else one
        for one in whole.checks
    )
    return replace(whole, checks=checks, verdicts={**whole.verdicts, "nnx": verdict})


RUNS: dict[Verdict, RunResult] = {
    "same": run(good()),
    "different": run(parted(real("batch_norm", Random(0))), good()),
    "inconclusive": run(
        single("missing", "structure", Finding("nnx", "not run", note="flax is missing"), "inconclusive")
    ),
    "error": run(good(), CaseResult("broken", "", "", "", (), {}, (), problem="broken.py: has no CASE.")),
}


def words(html: str) -> str:
    """The text of HTML."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def unpacked(html: str) -> list[str]:
    """Every packed part of a page."""
    blocks = re.findall(r'id="packed-\d+">([^<]*)<', html)
    return [part for block in blocks for part in json.loads(gzip.decompress(base64.b64decode(block)))]


def test_the_same_results_give_the_same_bytes():
    """Also after a way through JSON."""
    for result in RUNS.values():
        assert render_page([result]) == render_page([decode_results(encode_results(result), "results")])


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("same", "✓ The same: all 2 comparisons of 1 case. 0 not run."),
        ("different", "✗ Not the same: 1 of 4 comparisons differs. 3 the same, 0 not run."),
        ("inconclusive", "? Inconclusive: 1 of 2 comparisons has no verdict. 1 the same, 1 not run."),
        ("error", "! Error: 1 case could not be used. 2 the same, 0 not run."),
    ],
)
def test_title_and_first_heading_are_the_verdict_with_counts(verdict: Verdict, title: str):
    """Of what was not run, too, in any case."""
    html = render_page([RUNS[verdict]])
    assert f"<title>{title} equiv parity report</title>" in html
    assert words(re.search("<h1.*?</h1>", html)[0]).strip() == title


def test_every_verdict_has_a_page():
    """None is left out above."""
    assert set(RUNS) == set(get_args(Verdict))


def test_the_first_screen_says_where_which_side_and_why():
    """Everything that a reader asks first is before the matrix."""
    first = words(render_page([RUNS["different"]]).partition('id="matrix"')[0])
    for told in (
        "First divergence batch_norm-nnx , outputs, at eval __call__: output: haiku -13.38, nnx -13.36 at [1, 2], 4e+0",
        "Likely wrong haiku and linen agree here and only nnx differs: look at nnx.",
        "the formulas differ, not only the rounding",
        "Possible cause different constants in add: 1e-05 in haiku, 0.001 in nnx",
        "x = self.batchnorm(x)",
        "Along the network the first 2 of 3 intermediate values are equal; they differ from add in "
        "model/block/batch_norm (cases",
        "Still equal structure, gradients",
        "Not run platforms gpu, tpu;",
    ):
        assert told in first


def test_a_same_run_says_how_that_is_known():
    """And what came closest to its budget."""
    first = words(render_page([RUNS["same"]]).partition('id="matrix"')[0])
    assert re.search(r"Evidence 40 findings: .*12 exact", first)
    assert re.search(r"Closest to its budget alike-\w+ , \w+, .*: 0\.\d+ . its budget", first)


def test_what_was_not_run_is_listed_with_its_command():
    """And is no longer said where it was."""
    without, tried = words(render_page([RUNS["same"]])), words(text())
    for told in ("not tried mutants killed", "not timed step time", "equiv bench measures"):
        assert told not in tried
    assert "not tried" in without
    assert "run equiv run --selfcheck" in without
    assert "not timed" in without
    assert "equiv bench" in without


def test_tiles_count_comparisons_leaves_faults_proofs_time_and_platforms():
    """Each with what else has to be said of it."""
    tiles = words(re.search('<dl class="tiles">.*?</dl>', text(), re.DOTALL)[0])
    for told in (
        "comparisons the same 23 / 24 1 different",
        "leaves mapped 72 / 72 0 not mapped",
        r"mutants killed \d+ / \d+ 0 survived, 12 unidentifiable",
        r"findings proved \d+ / 480 valid for every input; \d+ of them use named rewrites",
        r"step time, port / reference 1\.\d\d. \[1\.\d\d, 1\.\d\d\]: the largest of \d+ slower, of 33 timed: ",
        "platforms cpu gpu, tpu not run; jax 0.10.2, haiku 0.0.17, flax 0.12.8",
    ):
        assert re.search(told, tiles), told


def test_the_page_needs_nothing_from_anywhere():
    """Every link leads to a place on it, packed parts included."""
    html = text()
    for part in (html, *unpacked(html)):
        assert re.findall(r'\b(?:href|src|srcset|action|data|poster)="(?!#)[^"]*"', part) == []
        assert re.findall(r"url\(|@import", part) == []
        assert re.findall(r"<(?:link|img|iframe|object|embed|form|base)\b", part) == []


def test_the_policy_allows_script_and_style_by_hash():
    """So that no other can run, whatever a name says."""
    html = text()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    for tag in ("script", "style"):
        content = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(content) == 1
        hashed = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{hashed}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert re.findall(r'\son\w+="|\sstyle="', html) == []


def test_24_comparisons_with_everything_measured_fit_into_150_kilobytes():
    """Builders, errata, faults, timings, growth and plots included."""
    result = twelve()
    assert sum(len(one.verdicts) for one in result.cases) == 24
    assert len(text().encode()) <= 150 * KILO


@pytest.mark.slow
def test_200_comparisons_of_300_leaves_fit_into_2_megabytes():
    """Every leaf with its place in each library, its grade, error and budget."""
    result = large()
    assert (sum(len(one.verdicts) for one in result.cases), len(result.cases[0].leaves)) == (200, 300)
    html = render_page([result])
    assert len(html.encode()) <= 2 * KILO * KILO
    assert unpacked(html)[0].count('<tr><th scope="row">') == 300


def test_the_first_failing_case_is_in_the_page_uncompressed():
    """For a reader without scripts; the rest is compressed, and no part is lost."""
    html = text()
    shown = html[html.index('id="cases"') : html.index('id="cost"')]
    assert shown.index("batch_norm@cpu") < shown.index("auto_encoder@cpu")
    assert 'open><summary><span class="g bad">✗ different (nnx), ✓ same (linen)' in re.sub(r"\s*\n\s*", "", shown)
    assert "batchnorm(x)" in shown
    assert len(shown.encode()) < MAX_INLINE_BYTES + 12 * KILO
    parts = "".join(unpacked(html))
    for name in ("auto_encoder", "train_state_dropout"):
        assert f"Layers and leaves of {name} on cpu" in parts + shown


def test_errata_say_what_is_printed_what_happens_and_what_works():
    """Each once, with its evidence, linked to its case."""
    html = text()
    table = html[html.index('id="errata"') : html.index('id="environment"')]
    errata = {row for one in twelve().cases for row in one.deviations}
    assert table.count("<tr>") == len(errata) + 1
    assert "<code>Model(784, 256, 10, rngs=rngs)</code> around that <code>Block</code>" in table
    assert '<a href="#batch_norm@cpu">' in table


def test_platforms_are_rows_and_their_environments_columns_with_differences_first():
    """Of merged runs."""
    gpu = run(good(), environment={**ENVIRONMENT, "platform": "gpu", "jax": "0.11"})
    html = render_page([RUNS["same"], gpu])
    matrix = html[html.index('id="matrix"') : html.index('id="cases"')]
    assert matrix.count("<td>cpu</td>") == matrix.count("<td>gpu</td>") == 2
    table = html[html.index('id="environment"') : html.index('id="words"')]
    names = re.findall(r'<tr><th scope="row">([\w-]+)( <span class="g warn">≠ differs</span>)?</th>', table)
    assert [name for name, differs in names if differs] == ["jax", "platform"]
    assert [bool(differs) for _, differs in names] == [True, True, *[False] * (len(names) - 2)]
    assert "tpu not run" in words(html)


def test_history_is_a_section_where_there_is_an_earlier_run():
    """And none where there is not."""
    earlier = run(good(), environment={**ENVIRONMENT, "jax": "0.9"}, started="2025-12-31T00:00:00")
    html = render_page([RUNS["different"]], since=earlier)
    section = words(html[html.index('id="history"') : html.index('id="words"')])
    assert "2025-12-31 00:00 → 2026-01-02 03:04 jax 0.9 → 0.10.2. 2 comparisons unchanged." in section
    assert f"+ appeared batch_norm-nnx {NOT_APPLICABLE} different" in section
    assert 'id="history"' not in render_page([RUNS["different"]])


def test_an_earlier_run_of_the_same_cases_is_history():
    """From the older to the newer, in whatever order they are given."""
    older = run(good(), started="2025-01-01T00:00:00")
    html = render_page([RUNS["same"], older])
    assert "2025-01-01 00:00 → 2026-01-02 03:04" in words(html)
    assert "<td>cpu run 2</td>" in html


def test_a_block_holds_several_parts_and_none_is_lost():
    """A large part has a block of its own; an address leads to its part."""
    packer = Packer()
    parts = ["a" * 10, "b" * (MAX_BLOCK_BYTES - 5), "</script>\0\ud7ff", "c" * (MAX_BLOCK_BYTES + 1), "d"]
    addresses = [packer.add(part) for part in parts]
    assert addresses == ["0:0", "1:0", "2:0", "3:0", "4:0"][: len(parts)]
    blocks = [json.loads(gzip.decompress(base64.b64decode(block))) for block in packer.packed()]
    for address, part in zip(addresses, parts, strict=True):
        block, place = map(int, address.split(":"))
        assert blocks[block][place] == part


def test_small_parts_share_a_block():
    """Which packs what they have in common once."""
    packer = Packer()
    assert [packer.add("x" * 1000) for _ in range(3)] == ["0:0", "0:1", "0:2"]


def test_what_is_tightened_keeps_its_code():
    """Lines of a builder are counted; blank lines between tags are not."""
    assert strip_whitespace("<p>\n\n  a\n</p>\n<pre>\n  b\n\n</pre>") == "<p>\na\n</p>\n<pre>\n  b\n\n</pre>"


def test_making_a_page_imports_neither_jax_nor_a_library(tmp_path):
    """A result can be read where nothing is installed that made it."""
    (tmp_path / "results.json").write_bytes(encode_results(RUNS["different"]))
    code = (
        "import sys\nfrom equiv.frontends.cli.main import main\n"
        "try:\n main(['report', 'results.json', '-o', 'parity.html'])\n"
        "except SystemExit:\n print(*({'jax', 'flax', 'haiku', 'optax', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert (tmp_path / "parity.html").read_text() == render_page([RUNS["different"]])


def test_a_run_of_nothing_has_a_page():
    """That says so."""
    assert "<title>? Nothing was compared: no case was run. equiv parity report</title>" in render_page([run()])


def test_a_name_that_no_picture_can_hold_is_replaced():
    """Control characters are not allowed in SVG at all."""
    whole = parted(real("batch_norm", Random(0)))
    checks = tuple(
        replace(check, findings=tuple(replace(one, place=f"\0\x1b{one.place}") for one in check.findings))
        for check in whole.checks
    )
    html = render_page([run(replace(whole, checks=checks))])
    assert any("\N{REPLACEMENT CHARACTER}" in part for part in (html, *unpacked(html)))


REPORTS = Path(__file__).parents[3] / "reports"


@pytest.mark.parametrize("path", sorted(REPORTS.glob("example*.json")), ids=lambda path: path.stem)
def test_a_committed_example_is_the_page_of_its_results(path: Path):
    """Except pictures, which depend on the release of the charting library. Regenerate it with `equiv report -o`."""

    def told(html: str) -> list[str]:
        return [
            re.sub("<svg.*?</svg>", "", part, flags=re.DOTALL)
            for part in (html.partition('id="packed-')[0], *unpacked(html))
        ]

    assert told(path.with_suffix(".html").read_text()) == told(render_page([read_results(path)]))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        (2.5, "2.5 s"),
        (0.034, "34 ms"),
        (5.6e-6, "5.6 \N{MICRO SIGN}s"),
        (7e-9, "7 ns"),
        (-1e-6, "lost in noise"),
    ],
)
def test_a_time_has_the_unit_that_fits(value: float | None, words: str):
    """A part of a step within noise of zero says so."""
    assert seconds_text(value) == words


def test_timings_are_a_table_of_phases_with_the_claims():
    """And what XLA says of each program."""
    html = "".join(unpacked(text())) + text()
    table = words(html[html.index("<caption>Median time, and the paired ratio") :][:6000])
    assert "program port, runner trace lower compile first call step dispatch device" in table
    assert re.search(r"nnx, nnx\.jit .* \d\.\d\d \[\d\.\d\d, \d\.\d\d\] (▲ slower|= no difference)", table)
    assert "130 80 1e+06 2e+06 300000 0 identical: any time difference is on the host" in words(html)
