"""Builders side by side: no line is lost or moved, equal lines share a row, and marks are where they belong."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from pages import TWELVE, parted, real

from equiv.core.case_files import CaseFile, load_case
from equiv.core.results import BuilderSource, DeviationResult
from equiv.report.html.views.builders import builder_columns
from equiv.report.html.views.code import CodeLine, align_builders, align_names


def plain(code: Markup) -> str:
    """A highlighted line as it was written; four spaces of indentation are one tab."""
    text = Markup(re.sub(r"</?i[^>]*>", "", code)).unescape()
    return re.sub(r"^\t+", lambda tabs: "    " * len(tabs[0]), text)


def height(column: tuple[CodeLine, ...], start: str) -> int:
    """In which row of a column a line begins with this."""
    return next(row for row, line in enumerate(column) if plain(line.code).strip().startswith(start))


@pytest.mark.parametrize("name", TWELVE)
def test_every_line_of_a_builder_is_shown_once_in_order(name: str):
    """With its number in the file, and with nothing but padding in between."""
    case = real(name, Random(0))
    for column, source in zip(builder_columns(case), case.sources.values(), strict=True):
        lines = [line for line in column.lines if line.number]
        assert "\n".join(plain(line.code) for line in lines) == source.text
        assert [line.number for line in lines] == list(range(source.line, source.line + len(lines)))
        assert all(not line.code for line in column.lines if not line.number)


@pytest.mark.parametrize("name", TWELVE)
def test_classes_and_functions_of_one_name_stand_at_one_height(name: str):
    """In every library that has them: `setup` is Linen's `__init__`."""
    texts = [column.lines for column in builder_columns(real(name, Random(0)))]
    assert len({len(column) for column in texts}) == 1
    written = ["\n".join(plain(line.code) for line in one) for one in texts]
    orders = [re.findall(r"^    class (\w+)", one, re.MULTILINE) for one in written]
    common = set.intersection(*map(set, orders))
    alike = len({tuple(word for word in order if word in common) for order in orders}) == 1
    assert alike or name == "lora", "its NNX guide has the classes in another order"
    for word in common if alike else ():
        assert len({height(column, f"class {word}(") for column in texts}) == 1


def test_a_method_stands_beside_its_twin_below_its_decorator():
    """The `def` lines share a row, also where one of them is decorated."""
    haiku, linen, nnx = (column.lines for column in builder_columns(real("batch_norm", Random(0))))
    first = [height(column, "def __call__") for column in (haiku, linen, nnx)]
    assert len(set(first)) == 1
    assert plain(linen[first[0] - 1].code).strip() == "@nn.compact"
    assert haiku[first[0] - 1].number == 0


ORDER = st.lists(st.sampled_from("abcdef"), unique=True)


@given(st.lists(ORDER, max_size=4))
def test_no_name_is_lost_moved_or_put_beside_another(orders: list[list[str]]):
    """Whatever the orders."""
    rows = align_names(orders)
    assert all(len(row) == len(orders) and len(set(row) - {None}) == 1 for row in rows)
    for index, order in enumerate(orders):
        assert [row[index] for row in rows if row[index] is not None] == order


@given(ORDER, st.data())
def test_what_one_library_leaves_out_moves_nothing(order: list[str], data: st.DataObject):
    """Every name of a part is in the row of the same name."""
    part = [name for name in order if data.draw(st.booleans())]
    assert align_names([order, part]) == [(name, name if name in part else None) for name in order]


@pytest.mark.parametrize("text", ["lambda rngs: Model(rngs)),", "", "def f(:\n  pass", "x = 1\n\n\ny = '</i>'"])
def test_what_is_no_function_is_shown_as_it_stands(text: str):
    """A builder may be a lambda in the middle of a call."""
    ((*lines,),) = align_builders([text], [1], [{}])
    assert "\n".join(plain(line.code) for line in lines) == text


def test_a_hostile_line_stays_text():
    """In and out of strings and comments."""
    text = "def f():\n    return '</code><script>' < 1 & 2  # <b>"
    ((*lines,),) = align_builders([text], [1], [{}])
    assert all(not re.search(r"<(?!/?i\b)", line.code) for line in lines)


def test_the_lines_where_programs_part_are_marked_in_both_ports():
    """And in no other."""
    case = parted(real("batch_norm", Random(0)))
    marked = {
        column.backend: [plain(line.code).strip() for line in column.lines if line.mark == "differs"]
        for column in builder_columns(case)
    }
    assert marked["linen"] == []
    assert marked["nnx"] == ["x = self.batchnorm(x)"]
    assert [line.startswith("x = hk.BatchNorm(") for line in marked["haiku"]] == [True]


def test_a_deviation_is_marked_where_its_working_form_stands():
    """With what the guide prints; one that quotes no line of the builder is below its column."""
    (column,) = [one for one in builder_columns(real("batch_norm", Random(0))) if one.backend == "nnx"]
    (marked,) = [line for line in column.lines if line.mark]
    assert plain(marked.code).strip() == "model = Model(784, 256, 10, rngs=rngs)"
    assert marked.why.startswith("differs from the guide, which prints `model = Block(4, 4, rngs=nnx.Rngs(0))`")
    (note,) = column.notes
    assert note.lines == (marked.number,)
    elsewhere = DeviationResult("nnx", "a dict", "raises", "another tree", "flax 0.12", "the guide")
    case = replace(real("batch_norm", Random(0)), deviations=(elsewhere,))
    assert [note.lines for column in builder_columns(case) for note in column.notes] == [()]


def test_a_builder_is_kept_as_written_with_a_relative_path(tmp_path: Path, monkeypatch):
    """Elsewhere the name of the file alone; one without a source is left out."""
    (tmp_path / "cases").mkdir()
    file = tmp_path / "cases" / "a.py"
    file.write_text(
        "from functools import partial\n\nfrom equiv.core.case import Case\n\n\nclass Holder:\n    def haiku(self):\n"
        "        return None\n\n\nCASE = Case('', {'haiku': Holder().haiku, 'nnx': partial(print)}, {}, ())\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load_case(CaseFile("a", file))
    assert found.path == "cases/a.py"
    assert found.sources == {"haiku": BuilderSource("cases/a.py", 7, "def haiku(self):\n    return None")}
    monkeypatch.chdir(Path(__file__).parent)
    assert load_case(CaseFile("a", file)).path == "a.py"
