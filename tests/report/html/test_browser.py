"""The page in a real browser: nothing is loaded, nobody is kept out, and every part can be reached and sent.

Chromium is looked for on the machine. Where it or playwright is missing these tests are skipped, unless
EQUIV_REQUIRE_BROWSER is set: then they fail.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pages import ENVIRONMENT, costs, parted, real, run

from equiv.core.results import CaseResult, RunResult
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.html.page import render_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "</script><img src=x onerror=alert(1)> \"'`&amp;"
DIFFERENT, SAME = "#batch_norm@cpu", "#counter@cpu"


def missing(what: str) -> None:
    """A browser that is not there is no pass where one was asked for."""
    (pytest.fail if os.environ.get("EQUIV_REQUIRE_BROWSER") else pytest.skip)(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install --group browser")
    program = os.environ.get("EQUIV_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing(f"none of {', '.join(NAMES)} is on the PATH; EQUIV_BROWSER can name another")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


def several() -> list[RunResult]:
    """Two platforms: one with a failure, errata, faults, costs, growth and a case that is broken; one without."""
    random = Random(0)
    good = replace(real("counter", random), costs=costs(random, deep=True))
    broken = CaseResult("broken", "", "", "", (), {}, (), problem="broken.py: has no CASE.")
    later = run(real("counter", random), environment={**ENVIRONMENT, "platform": "gpu"})
    return [run(parted(real("batch_norm", random)), good, broken), later]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "parity.html"
    runs = several()
    path.write_text(
        render_page(runs, replace(runs[0], cases=runs[0].cases[1:], environment={**ENVIRONMENT, "jax": "0.9"}))
    )
    return path


@pytest.fixture
def visit(browser: Any, file: Path) -> Iterator[Any]:
    """Open the page: address, theme, width and whether scripts run; what it asks for and complains of is kept."""
    contexts = []

    def opened(address: str = "", path: Path = file, scheme: str = "light", width: int = 1280, scripts: bool = True):
        size = {"width": width, "height": 900}
        context = browser.new_context(color_scheme=scheme, viewport=size, java_script_enabled=scripts)
        contexts.append(context)
        tab = context.new_page()
        tab.asked, tab.said = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on("dialog", lambda dialog: tab.said.append(dialog.message))
        tab.goto(path.as_uri() + address)
        return tab

    yield opened
    for context in contexts:
        context.close()


def open_all(tab: Any) -> None:
    """Open every case and everything folded in it."""
    tab.evaluate("document.querySelectorAll('.case').forEach((one) => { one.open = true; })")
    tab.wait_for_selector(".case > [data-packed]", state="detached")
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.wait_for_selector("[data-packed]", state="detached")


def test_nothing_is_asked_for_but_the_page_itself(visit: Any, file: Path):
    """Also after everything has been opened; the console stays empty."""
    tab = visit()
    open_all(tab)
    assert tab.asked == [file.as_uri()]
    assert tab.said == []


EVALUATE = "new Function('return 1')()"
INSERT = """(() => {
  const script = document.createElement("script");
  script.textContent = "window.ran = 1";
  document.body.append(script);
  if (!window.ran) throw new TypeError();
})()"""
FETCH = "fetch('https://example.org/')"


@pytest.mark.parametrize(
    ("code", "error"),
    [(EVALUATE, "EvalError"), (INSERT, "TypeError"), (FETCH, "TypeError")],
    ids=["eval", "script", "fetch"],
)
def test_the_policy_forbids_what_a_hostile_name_would_need(visit: Any, code: str, error: str):
    """In a task of the page's own: what the test driver evaluates at once is exempt."""
    tried = f"async () => {{ try {{ await {code}; return ''; }} catch (e) {{ return e.name; }} }}"
    assert visit().evaluate(f"new Promise((done) => setTimeout(() => ({tried})().then(done)))") == error


def test_the_policy_forbids_styles_of_anybody_else(visit: Any):
    """An attribute in a text that got through would still do nothing."""
    tab = visit()
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=dyed style=\"color:#ff0102\">')")
    assert tab.evaluate("getComputedStyle(document.getElementById('dyed')).color") != "rgb(255, 1, 2)"


@pytest.mark.parametrize(
    ("scheme", "opened"),
    [
        ("light", False),
        ("dark", False),
        pytest.param("light", True, marks=pytest.mark.slow),
        pytest.param("dark", True, marks=pytest.mark.slow),
    ],
)
def test_the_accessibility_checker_finds_nothing(visit: Any, scheme: str, opened: bool):
    """All rules of axe-core, with every case and every table open; in the dark those that depend on it."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        missing("axe-playwright-python is not installed: pip install --group browser")
    axe = Axe()
    tab = visit(scheme=scheme)
    if opened:
        open_all(tab)
    found = axe.run(tab, options={} if scheme == "light" else {"runOnly": ["color-contrast"]}).response
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert len(found["passes"]) > (20 if scheme == "light" else 0)


def test_without_scripts_verdict_matrix_and_failing_case_are_readable(visit: Any):
    """What is packed says so, and says where else it can be read."""
    tab = visit(scripts=False)
    text = tab.inner_text("main")
    for words in (
        "Error: 1 case could not be used",
        "broken.py: has no CASE.",
        "equiv report RESULTS.json -o report.md",
        "refuted",
    ):
        assert words in text
    assert tab.locator(".matrix tbody tr:visible").count() == 7
    assert len(text) > 5000


def test_without_scripts_the_first_failing_case_stands_there_whole(visit: Any, tmp_path: Path):
    """Its likely cause, its code and its leaves."""
    path = tmp_path / "one.html"
    path.write_text(render_page([run(parted(real("batch_norm", Random(0))))]))
    text = visit(path=path, scripts=False).inner_text("main")
    for words in (
        "different constants in add: 1e-05 in haiku, 0.001 in nnx",
        "class Block(nnx.Module):",
        "block0.linear0/kernel",
    ):
        assert words in text


def test_a_hostile_name_stays_text(visit: Any, tmp_path: Path):
    """In the matrix, in the case, in the builders and in every table."""
    path, case = tmp_path / "hostile.html", parted(real("batch_norm", Random(0)))
    leaves = tuple(replace(leaf, leaf=HOSTILE + leaf.leaf, places={"haiku": HOSTILE}) for leaf in case.leaves)
    sources = {who: replace(source, text=source.text + f"\n# {HOSTILE}") for who, source in case.sources.items()}
    hostile = replace(case, name=HOSTILE, lesson=HOSTILE, guide=HOSTILE, leaves=leaves, sources=sources, path=HOSTILE)
    path.write_text(render_page([run(hostile, environment={HOSTILE: HOSTILE}, problems=(HOSTILE,))]))
    tab = visit(path=path)
    open_all(tab)
    assert tab.said == []
    assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert tab.inner_text(".matrix tbody th") == HOSTILE
    assert tab.inner_text(".case").count(HOSTILE) > 10
    tab.click(".matrix tbody a")
    assert tab.evaluate("document.activeElement.closest('.case') !== null")


@pytest.mark.parametrize("width", [390, 500, 1280])
def test_the_page_does_not_scroll_sideways(visit: Any, width: int):
    """Wide tables and code scroll by themselves, and can be reached by keyboard."""
    tab = visit(width=width)
    open_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unreachable = "[...document.querySelectorAll('.scroll, pre')].filter((one) => one.tabIndex !== 0).length"
    assert tab.evaluate(unreachable) == 0


def visible(tab: Any) -> int:
    """Rows of the matrix that are shown."""
    return tab.locator(".matrix tbody tr:visible").count()


def test_filters_count_what_they_show_and_the_address_keeps_them(visit: Any):
    """Also when the address is opened again."""
    tab = visit()
    counts = {one: int(one.rpartition(" ")[2]) for one in tab.locator("[data-kind][aria-pressed]").all_inner_texts()}
    assert list(counts.values()) == [7, 1, 1, 0, 5]
    for label, count in counts.items():
        tab.get_by_role("button", name=label).click()
        assert visible(tab) == count
        assert tab.get_by_role("button", name=label).get_attribute("aria-pressed") == "true"
    tab.get_by_role("button", name="different").click()
    address = tab.evaluate("location.hash")
    assert "show=different" in address
    assert visible(visit(address)) == 1


def test_search_narrows_by_every_word(visit: Any):
    """Words of the case, the candidate and the grades; Escape shows all again."""
    tab = visit()
    rows = visible(tab)
    tab.fill("#search", "count nnx gpu")
    assert visible(tab) == 1
    assert tab.inner_text("#shown") == f"1 of {rows} shown."
    assert visible(visit(tab.evaluate("location.hash"))) == 1
    tab.keyboard.press("Escape")
    assert visible(tab) == rows


def test_failures_stand_first(visit: Any):
    """In the matrix, and among the cases, of which the first is open."""
    tab = visit()
    assert tab.locator(".matrix tbody tr").first.get_attribute("data-kind") == "error"
    assert tab.locator(".matrix tbody tr").nth(1).inner_text().startswith("batch_norm\tnnx / haiku")
    assert tab.locator(".case").evaluate_all("(all) => all.map((one) => one.open)")[:2] == [True, False]


def test_keys_move_search_and_open_and_can_be_turned_off(visit: Any):
    """As WCAG 2.1.4 asks of keys that are single characters."""
    tab = visit()
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.textContent") == "batch_norm"
    tab.keyboard.press("k")
    assert tab.evaluate("document.activeElement.textContent") == "broken"
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(f"{css(DIFFERENT)}[open] h3")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    tab.get_by_role("button", name="keys on").click()
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "keys"


def css(anchor: str) -> str:
    """An anchor as a selector."""
    return f'[id="{anchor[1:]}"]'


def test_a_link_to_a_line_opens_case_and_line(visit: Any):
    """From the place where the programs part, and from an address alone."""
    tab = visit(DIFFERENT)
    link = tab.locator(f"{css(DIFFERENT)} .part a", has_text="cases/batch_norm.py").last
    link.click()
    address = tab.evaluate("location.hash")
    marked = visit(address).locator(css(address))
    marked.wait_for()
    assert marked.inner_text().startswith("\t\t\tx = self.batchnorm(x)")
    assert "first difference" in marked.inner_text()
    assert marked.evaluate("(one) => one.getBoundingClientRect().top < innerHeight")


def test_an_address_of_a_packed_case_unpacks_it(visit: Any):
    """Its three builders are in three columns, at the same height."""
    tab = visit(SAME)
    tab.wait_for_selector(f"{css(SAME)} .columns")
    tops = tab.locator(f"{css(SAME)} .columns > div > pre").evaluate_all("(all) => all.map((p) => p.offsetTop)")
    assert len(tops) == 3
    assert len(set(tops)) == 1


def test_every_plot_has_a_question_and_an_answer(visit: Any):
    """And is an image with a name for those who do not see it."""
    tab = visit()
    open_all(tab)
    figures = tab.locator("figure")
    assert figures.count() >= 8
    for index in range(figures.count()):
        figure = figures.nth(index)
        question = figure.locator("figcaption b").inner_text()
        assert question.endswith("?")
        assert len(figure.locator("figcaption").inner_text()) > len(question) + 20
        assert figure.locator("svg").get_attribute("role") == "img"
        assert figure.locator("svg").get_attribute("aria-label") == question
        assert figure.locator("table tbody tr").count() >= 1


def test_colour_is_never_alone(visit: Any):
    """Every coloured word begins with a sign that its state alone has."""
    tab = visit()
    open_all(tab)
    signs: dict[str, set[str]] = {}
    for state, text in tab.locator(".g").evaluate_all("(all) => all.map((one) => [one.classList[1], one.textContent])"):
        signs.setdefault(state, set()).add(text[0])
        assert len(text) > 2 or text == NOT_APPLICABLE
    for state, others in signs.items():
        apart = set[str]().union(
            *(found for name, found in signs.items() if name != state and "meant" not in (name, state))
        )
        assert not others & apart, (state, others)


def test_plots_follow_the_theme(visit: Any):
    """Their words have the colour of the page's own."""
    for scheme in ("light", "dark"):
        tab = visit("#cost", scheme=scheme)
        text = "getComputedStyle(document.querySelector('svg text')).fill"
        assert tab.evaluate(text) == tab.evaluate("getComputedStyle(document.body).color")


def test_print_leaves_out_what_paper_cannot_do(visit: Any):
    """And shows all of a table that scrolls on the screen."""
    tab = visit(DIFFERENT)
    tab.emulate_media(media="print")
    assert not tab.locator(".tools").is_visible()
    assert tab.locator("h1").is_visible()
    assert tab.locator(".scroll").first.evaluate("(one) => getComputedStyle(one).overflow") == "visible"
    tab.set_viewport_size({"width": 794, "height": 1123})  # A4
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
