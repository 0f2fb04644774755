"""What the HTML report costs: size, time to make, to load, to open a case and to filter; and what it asks of a reader.

Run it with `python tests/benchmarks/bench_page.py`; it needs the group `browser` and a Chromium. Times
are of this machine: loading is also given as a ratio to loading an empty page.
"""

import gzip
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from pages import large, twelve
from playwright.sync_api import sync_playwright

from equiv.core.results import RunResult
from equiv.report.html.page import render_page

ROUNDS = 5

OPEN = """async (name) => {
  const details = document.getElementById(name);
  const start = performance.now();
  details.open = true;
  while (details.querySelector(":scope > [data-packed]")) await new Promise((done) => setTimeout(done));
  details.getBoundingClientRect();
  return performance.now() - start;
}"""

FILTER = """() => {
  const start = performance.now();
  const search = document.getElementById("search");
  search.value = "nnx";
  search.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  return performance.now() - start;
}"""


def median_of(browser: Any, url: str, measure: Callable[[Any], float]) -> float:
    """The median over fresh tabs."""
    found = []
    for _ in range(ROUNDS):
        tab = browser.new_page()
        tab.goto(url)
        found.append(measure(tab))
        tab.close()
    return statistics.median(found)


def loaded(tab: Any) -> float:
    """Milliseconds until the page had loaded."""
    return tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")


def sizes(browser: Any, folder: Path, name: str, result: RunResult, empty: float) -> Path:
    """Print what one page costs."""
    clock = time.process_time()
    text = render_page([result])
    made = time.process_time() - clock
    path = folder / f"{name}.html"
    path.write_text(text)
    url, case = path.as_uri(), result.cases[-1]
    leaves = len(case.leaves)
    load = median_of(browser, url, loaded)
    opened = median_of(browser, url, lambda tab: tab.evaluate(OPEN, f"{case.name}@cpu"))
    filtered = median_of(browser, url, lambda tab: tab.evaluate(FILTER))
    data = text.encode()
    count = sum(len(one.verdicts) for one in result.cases)
    small = len(gzip.compress(data, 9))
    print(
        f"| {count} x {leaves} | {len(data) / 1e3:,.0f} kB | {small / 1e3:,.0f} kB | {made:.1f} s "
        f"| {load:.0f} ms ({load / empty:.1f}x an empty page) | {opened:.0f} ms | {filtered:.0f} ms |"
    )
    return path


def reading(browser: Any, path: Path) -> None:
    """Print what the page asks of a reader: requests, themes, scripts, accessibility."""
    asked: list[str] = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('.case').forEach((one) => { one.open = true; })")
        tab.wait_for_selector(".case > [data-packed]", state="detached")
        violations = Axe().run(tab).response["violations"]
        nodes = sum(len(one["nodes"]) for one in violations)
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        print(f"axe, {scheme} (background {background}): {len(violations)} rules, {nodes} nodes")
        context.close()
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(path.as_uri())
    print(f"without scripts: {len(tab.inner_text('body'))} characters")
    print(f"requests besides the page: {len([url for url in asked if url != path.as_uri()])}")


def main() -> None:
    """Print the figures."""
    program = os.environ.get("EQUIV_BROWSER") or shutil.which("chromium") or sys.exit("no chromium on the PATH")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        print(f"Chromium {browser.version}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        empty = Path(folder) / "empty.html"
        empty.write_text("<!doctype html><title>empty</title>")
        base = median_of(browser, empty.as_uri(), loaded)
        print("| comparisons x leaves | file | gzip | made in (CPU) | load | open a case | filter |")
        print("|---|---|---|---|---|---|---|")
        example = sizes(browser, Path(folder), "twelve", twelve(), base)
        sizes(browser, Path(folder), "large", large(), base)
        sizes(browser, Path(folder), "deep", large(20, 3000), base)
        reading(browser, example)
        browser.close()


if __name__ == "__main__":
    main()
