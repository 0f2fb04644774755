"""The command line: what goes to which stream, which exit code, and what is never imported."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from equiv.core.results import RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.frontends.cli.main import main

SUITE = Path(__file__).parents[3] / "cases"

SOURCE = '''"""A lesson."""

from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="dense")(x)

    return Model()


def nnx(rngs):
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x)

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[4,2]"},
    layers=(linear("dense", linen="dense", nnx="dense"),),
    steps=1,
)
'''

KINDS = {
    "same": ("", ""),
    "different": ("self.dense(x)", "self.dense(x) * 2"),
    "trouble": ("CASE = Case(", "CASE = = Case("),
    "inconclusive": ("from flax import nnx", "import nonexistent_library"),
}
CODES = {"same": 0, "different": 1, "trouble": 2, "inconclusive": 3}


def write(path: Path, kind: str = "same", *changes: tuple[str, str]) -> Path:
    """A case file that will be of that kind."""
    source = SOURCE
    for old, new in (KINDS[kind], *changes):
        assert old in source, f"{old!r} does not occur"
        source = source.replace(old, new)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def invoke(*arguments: object, **environment: str) -> Result:
    """The command line in this process."""
    runner = CliRunner(env={"FORCE_COLOR": None, "NO_COLOR": None, "COLUMNS": None, **environment})
    return runner.invoke(main, list(map(str, arguments)))


def run(folder: Path, *arguments: object, **environment: str) -> Result:
    """`equiv run`, with its reports in the folder."""
    return invoke("run", *arguments, "--reports", folder / "reports", **environment)


def stored(folder: Path) -> RunResult:
    """What a run has written."""
    return decode_results((folder / "reports" / "results.json").read_bytes(), "results")


def result_file(path: Path, headline: str = "Inconclusive: stored.") -> Path:
    """The results of a run without cases."""
    path.write_bytes(
        encode_results(RunResult("inconclusive", headline, {"jax": "1.2.3"}, (), "2026-01-01T00:00:00", 0.5))
    )
    return path


@pytest.mark.parametrize("kind", CODES)
def test_the_exit_code_is_that_of_diff(tmp_path: Path, kind: str):
    ran = run(tmp_path, write(tmp_path / "case.py", kind))
    assert ran.exit_code == CODES[kind], ran.output
    assert stored(tmp_path).verdict == {"trouble": "error"}.get(kind, kind)


def test_the_program_exits_with_the_code_and_names_the_difference(tmp_path: Path):
    """Who differs, where, and by how much."""
    write(tmp_path / "different.py", "different")
    ran = subprocess.run(
        [sys.executable, "-m", "equiv", "run", "different.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    first = ran.stdout.splitlines()[0]
    assert first.startswith("✗ Not the same: 1 of 1 comparison of 1 case. First: different-nnx, outputs, ")
    assert first.endswith(" x budget")
    assert ran.stderr == f"results: {Path('reports/results.json')}\n"
    assert stored(tmp_path).headline == first.removeprefix("✗ ")


def test_several_verdicts_in_one_run_have_a_line_each(tmp_path: Path):
    """A line for each that is not the same."""
    for kind in ("same", "different", "inconclusive"):
        write(tmp_path / "cases" / f"a_case_with_quite_a_long_name_that_is_{kind}.py", kind)
    ran = run(tmp_path, tmp_path / "cases", COLUMNS="80")
    lines = ran.stdout.splitlines()
    name = "a_case_with_quite_a_long_name_that_is"
    assert lines[0].startswith(f"✗ Not the same: 1 of 3 comparisons of 3 cases. First: {name}_different-nnx, ")
    for words in ("✗ different", "✓ same", "? inconclusive"):
        assert any(line.startswith(words) for line in lines), (words, ran.stdout)
    assert any(line.startswith(f"✗ {name}_different-nnx, outputs, ") for line in lines)
    assert any(line.startswith(f"? {name}_inconclusive-nnx: structure not run, nnx: ") for line in lines)
    assert ran.exit_code == 1


@pytest.mark.parametrize(
    ("expression", "names"),
    [("one", ["one"]), ("one or two", ["one", "two"]), ("not one and not two", ["sub/three"]), ("sub/", ["sub/three"])],
    ids=["word", "or", "not", "folder"],
)
def test_an_expression_chooses_cases_by_name(tmp_path: Path, expression: str, names: list[str]):
    for name in ("one", "two", "sub/three"):
        write(tmp_path / "cases" / f"{name}.py", "trouble")
    run(tmp_path, tmp_path / "cases", "-k", expression)
    assert [case.name for case in stored(tmp_path).cases] == names


def test_an_expression_that_fits_no_case_is_inconclusive(tmp_path: Path):
    ran = run(tmp_path, write(tmp_path / "case.py"), "-k", "nothing")
    assert ran.stdout.startswith("? Inconclusive: no case was run. Give other paths, or another -k.\n")
    assert ran.exit_code == 3


UNUSABLE = {
    "unknown_path": (
        ["run", "nowhere"],
        "equiv: nowhere: no such file or folder. Give a case file, or a folder of them.\n",
    ),
    "empty_folder": (
        ["run", "empty"],
        "equiv: empty: no case files (*.py) in this folder. Give a folder or file with a CASE.\n",
    ),
    "no_folder_cases": (["list"], "equiv: cases: no such file or folder. Give a case file, or a folder of them.\n"),
    "expression": (
        ["run", "case.py", "-k", "dropout or"],
        "equiv: -k 'dropout or': cannot be parsed. Write words with and, or, not: \"dropout or rnn\".\n",
    ),
    "no_results": (["report", "nowhere.json"], "equiv: nowhere.json: cannot be read: No such file or directory."),
    "text_for_results": (["report", "text.json"], "equiv: text.json: not a results file of equiv: "),
    "bytes_for_results": (["report", "bytes.json"], "equiv: bytes.json: not a results file of equiv: "),
    "other_json": (["report", "other.json"], "equiv: other.json: not a results file of equiv: "),
    "half_a_file": (["report", "half.json"], "equiv: half.json: not a results file of equiv: "),
    "other_schema": (
        ["report", "newer.json"],
        "equiv: newer.json: results schema 99, this version reads 1 and 2. Regenerate it ",
    ),
    "output": (
        ["report", "good.json", "-o", "empty"],
        "equiv: empty: cannot be written: Is a directory. Give another file with -o.\n",
    ),
    "unknown_option": (["run", "--reprots", "x"], "Error: No such option '--reprots'"),
    "unknown_command": (["rnu"], "Error: No such command 'rnu'"),
}


@pytest.mark.parametrize(("arguments", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_bad_usage_is_one_message_on_stderr_and_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "case.py")
    whole = result_file(tmp_path / "good.json").read_bytes()
    (tmp_path / "text.json").write_text("not JSON")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "half.json").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "newer.json").write_bytes(whole.replace(b'"schema": 2', b'"schema": 99'))
    ran = invoke(*arguments)
    assert message in ran.stderr
    assert ran.stdout == ""
    assert ran.exit_code == 2
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "equiv: interrupted\n"),
        (RuntimeError("planted"), "equiv: failed with RuntimeError: planted. Please report it with the command.\n"),
    ],
    ids=["interrupt", "accident"],
)
@pytest.mark.parametrize("command", ["run", "list"])
def test_an_error_outside_any_case_is_trouble_not_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, error: BaseException, message: str
):
    """By its exit code."""

    def fail(*_):
        raise error

    home = {"run": "equiv.frontends.run", "list": "equiv.frontends.cli.list"}[command]
    monkeypatch.setattr(import_module(home), "find_case_files", fail)
    ran = invoke(command, tmp_path)
    assert (ran.stderr, ran.stdout, ran.exit_code) == (message, "", 2)


def test_json_is_all_of_stdout_whatever_a_case_prints(tmp_path: Path):
    path = write(
        tmp_path / "case.py", "same", ("def linen():", "print('file')\n\n\ndef linen():\n    print('builder')")
    )
    ran = run(tmp_path, path, "--json")
    assert decode_results(ran.stdout.encode(), "stdout") == stored(tmp_path)
    assert ran.stdout == (tmp_path / "reports" / "results.json").read_text()
    assert "file\nbuilder\n" in ran.stderr
    assert ran.exit_code == 0


def test_reports_go_where_they_are_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "case.py", "trouble")
    invoke("run", path)
    ran = invoke("run", path, "--reports", "some/other folder")
    assert (tmp_path / "reports" / "results.json").is_file()
    assert (tmp_path / "some/other folder/results.json").is_file()
    assert ran.stderr == "results: some/other folder/results.json\n"


def test_progress_is_on_stderr_of_a_terminal_only(tmp_path: Path):
    path = write(tmp_path / "case.py", "trouble")
    terminal = run(tmp_path, path, FORCE_COLOR="1")
    assert "importing jax" in terminal.stderr
    assert "importing jax" not in terminal.stdout
    assert run(tmp_path, path).stderr == f"results: {tmp_path / 'reports' / 'results.json'}\n"


@pytest.mark.parametrize("command", ["run", "list"])
def test_no_color_means_no_escape_codes(tmp_path: Path, command: str):
    path = write(tmp_path / "case.py", "trouble")
    arguments = [command, path, *(["--reports", tmp_path] if command == "run" else [])]
    assert "\x1b[" in invoke(*arguments, FORCE_COLOR="1").stdout
    assert "\x1b" not in invoke(*arguments, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b" not in invoke(*arguments).output


def test_list_shows_names_models_and_lessons(tmp_path: Path):
    write(tmp_path / "one.py")
    write(tmp_path / "sub" / "two.py", "same", ("A lesson.", "Another [/] lesson."), ("steps=1", "steps=2"))
    ran = invoke("list", tmp_path, COLUMNS="100")
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["case", "models", "lesson"],
        ["one", "linen", "nnx", "A", "lesson."],
        ["sub/two", "linen", "nnx", "Another", "[/]", "lesson."],
    ]
    assert ran.exit_code == 0


def test_list_shows_a_broken_case_and_is_trouble(tmp_path: Path):
    """Among the others, which are shown."""
    write(tmp_path / "bad.py", "trouble")
    write(tmp_path / "good.py")
    ran = invoke("list", tmp_path, COLUMNS="200")
    assert "SyntaxError: invalid syntax (bad.py, line " in ran.stdout
    assert "A lesson." in ran.stdout
    assert ran.exit_code == 2


def test_hidden_folders_and_tests_are_no_cases(tmp_path: Path):
    for name in (".venv/lib/module.py", "_shared.py", "test_case.py", "conftest.py", "case.py"):
        write(tmp_path / name)
    assert [line.split()[0] for line in invoke("list", tmp_path).stdout.splitlines()] == ["case", "case"]


def test_a_case_may_import_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_this_case.py").write_text('LESSON = "float32[4,2]"')
    write(
        tmp_path / "case.py",
        "same",
        ('"float32[4,2]"', "LESSON"),
        ("from equiv.case", "from neighbour_of_this_case import LESSON\nfrom equiv.core.case"),
    )
    assert invoke("list", tmp_path / "case.py").exit_code == 0
    assert sys.path[-1] == str(tmp_path)


def test_report_goes_to_stdout_or_to_a_file(tmp_path: Path):
    path, output = result_file(tmp_path / "results.json"), tmp_path / "new" / "report.md"
    printed, written = invoke("report", path), invoke("report", path, "-o", output)
    assert printed.stdout.startswith("# ? Inconclusive: stored.\n")
    assert output.read_text() == printed.stdout
    assert (written.stdout, printed.exit_code, written.exit_code) == ("", 0, 0)


def test_report_puts_several_results_into_one_document_in_order(tmp_path: Path):
    paths = [result_file(tmp_path / f"{number}.json", f"Inconclusive: run {number}.") for number in (2, 1)]
    lines = invoke("report", *paths).stdout.splitlines()
    assert [line for line in lines if line.startswith("# ")] == ["# ? Inconclusive: run 2.", "# ? Inconclusive: run 1."]


WATCHED = """
import sys
from importlib import import_module
from equiv.frontends.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*sorted({"jax", "flax", "haiku", "optax", "numpy"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["help", "run_help", "version", "list", "report"])
def test_nothing_but_a_run_imports_jax_or_a_framework(tmp_path: Path, command: str):
    arguments = {
        "help": ["--help"],
        "run_help": ["run", "--help"],
        "version": ["--version"],
        "list": ["list", str(SUITE)],
        "report": ["report", str(result_file(tmp_path / "results.json"))],
    }[command]
    ran = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert (ran.returncode, ran.stderr) == (0, "\n")
    assert ran.stdout != ""
