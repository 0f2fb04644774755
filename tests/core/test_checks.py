"""The list of checks: what is told of them elsewhere follows it."""

from pathlib import Path

import pytest

from equiv.comparison.checks import CHECKS
from equiv.core.checks import CHECK_KINDS, CHECK_NAMES

ROOT = Path(__file__).parents[2]
HELPERS = {"__init__", "coverage"}


def test_every_module_of_a_check_has_its_line():
    modules = {file.stem for file in (ROOT / "equiv/comparison/checks").glob("*.py")} - HELPERS
    assert modules == set(CHECK_NAMES) == set(CHECKS)


def test_the_table_in_the_readme_has_every_check():
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index("| check | question |") + 2
    table = lines[start : lines.index("", start)]
    assert table == [f"| {kind.name} | {kind.question} |" for kind in CHECK_KINDS]


@pytest.mark.parametrize("kind", CHECK_KINDS, ids=lambda kind: kind.name)
def test_a_check_is_one_question(kind):
    assert kind.question.endswith("?")
    assert kind.question.count("?") == 1


def test_the_glossary_names_the_checks_in_order():
    text = " ".join((ROOT / "docs/glossary.md").read_text().split())
    assert f"{', '.join(CHECK_NAMES[:-1])} or {CHECK_NAMES[-1]}" in text
