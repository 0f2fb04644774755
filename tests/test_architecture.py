"""What CONTRIBUTING promises of the source: sizes, names of tests, imports, and no path of anybody's machine."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from equiv.backends.registry import all_libraries, load_library
from equiv.core.output_name import InputKind, OutputKind, ProgramKind

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "equiv").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_TEST_NAME_WORDS = 400, 60, 10
HOMES = {"haiku": ("equiv/backends/haiku/",), "flax": ("equiv/backends/linen/", "equiv/backends/nnx/")}
"""Library to the folders that may import it."""


def relative(path):
    """The path below the project's folder."""
    return path.relative_to(ROOT).as_posix()


def of_every(paths):
    """Make one test of a check of one file: it names every file that fails. A test for each took a minute to report."""

    def decorate(check):
        def test():
            failed = {}
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    failed[relative(path)] = str(error)
            assert failed == {}

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


every_source, every_test_file, every_file = of_every(SOURCES), of_every(TESTS), of_every([*SOURCES, *TESTS])


def nodes(path, *kinds):
    """The nodes of these kinds in the syntax tree of a file."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


@every_file
def test_a_file_is_short_enough_to_read_at_once(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@every_file
def test_a_function_is_short_enough_to_read_at_once(path):
    """Without its signature and docstring."""
    functions = nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = {function.name: function.body[ast.get_docstring(function) is not None :] for function in functions}
    lines = {name: body[-1].end_lineno - body[0].lineno + 1 for name, body in bodies.items() if body}
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


@every_test_file
def test_a_test_name_is_short_enough_to_read_at_once(path):
    """Words are the parts between underscores, without the `test` in front."""
    functions = nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)
    words = {f.name: len(f.name.split("_")) - 1 for f in functions if f.name.startswith("test_")}
    assert {name: count for name, count in words.items() if count > MAX_TEST_NAME_WORDS} == {}


@every_source
def test_a_framework_is_imported_in_its_own_backend_only(path):
    here = path.relative_to(ROOT).as_posix()
    imported = {alias.name.partition(".")[0] for node in nodes(path, ast.Import) for alias in node.names}
    imported |= {(node.module or "").partition(".")[0] for node in nodes(path, ast.ImportFrom) if node.level == 0}
    assert {name for name, homes in HOMES.items() if name in imported and not here.startswith(homes)} == set()


NAMES_OF_LIBRARIES = {name for one in all_libraries() for name in (one.name, *one.distributions, *one.modules)}
SPEAK_OF_LIBRARIES = (
    "equiv/core/releases.py",  # from which releases on ports are compared, asked before any backend is imported
    "equiv/core/layer_catalogue.py",  # pairs of layers, one of each library
    "equiv/report/layer_catalogue.py",  # and the table of these pairs
    "equiv/case.py",  # what a case file may import, a known difference of one library among it
)


def names_of_libraries(path):
    """The libraries that code names, as a whole text or in an import; docstrings and sentences are no code."""
    texts = {node.value for node in nodes(path, ast.Constant) if isinstance(node.value, str)}
    modules = {node.module or "" for node in nodes(path, ast.ImportFrom)}
    modules |= {alias.name for node in nodes(path, ast.Import) for alias in node.names}
    words = {text.removeprefix("equiv.backends.").split(".")[0] for text in texts | modules if " " not in text}
    return words.union(texts) & NAMES_OF_LIBRARIES


@every_source
def test_no_library_is_named_outside_its_own_folder(path):
    """Every fact of a library is in its `library.py`, so that a new one is a folder and nothing else."""
    here = path.relative_to(ROOT)
    if here.as_posix() not in SPEAK_OF_LIBRARIES:
        own = {here.parts[2]} if here.match("equiv/backends/*/*.py") else set()
        known = own and {*load_library(*own).distributions, *load_library(*own).modules}
        roots = {one.split(".")[0] for one in known}
        assert names_of_libraries(path) <= own | known | roots


@pytest.mark.parametrize(
    "code",
    ['port.library == "haiku"', '{"flax": 1}', "from equiv.backends.nnx.build import build", "import flax.linen"],
)
def test_a_library_named_in_code_is_noticed(code, tmp_path):
    (tmp_path / "one.py").write_text(f'"""Haiku and `nnx` in words."""\n{code}\n')
    assert names_of_libraries(tmp_path / "one.py")
    (tmp_path / "two.py").write_text('"""Haiku and `nnx` in words."""\nSAID = "give a haiku of linen"\n')
    assert not names_of_libraries(tmp_path / "two.py")


def test_the_backends_that_may_import_a_framework_are_there():
    assert all((ROOT / home).is_dir() for homes in HOMES.values() for home in homes)


KINDS = {*get_args(ProgramKind), *get_args(InputKind), *get_args(OutputKind), "opt_state", "step output"}
KINDS |= {"moving", "swapping", "tampering with", "lengthening"}  # of trials, which are `ProbeTrial`
NAME_PARTS = (": ", "after training, ", *(f"{kind}{mark}" for kind in sorted(KINDS) for mark in (" ", "/", ":")))
"""What the text of a program's, input's or output's name is made of, and what code would look for to read it."""

TEXT_METHODS = ("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit")
READS_TEXTS = {"equiv/core/results_v1.py": "results of schema 1 have names as texts only"}
"""File to why it may take names apart."""


def text_constants(node):
    """The constant texts that an argument begins with: of a text, an f-string, or each text of a tuple."""
    if isinstance(node, ast.Tuple):
        return [text for one in node.elts for text in text_constants(one)]
    first = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


def name_reads(tree):
    """The lines that take a name apart by text: `place.startswith("state ")`, `": gradient " in place`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TEXT_METHODS:
            texts = [text for argument in node.args for text in text_constants(argument)]
            # What ends with a colon is a sentence; a name has it in the middle.
            if ": " in texts and node.func.attr in ("endswith", "removesuffix"):
                continue
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            # `"train step" in programs` looks for a whole name in a list.
            texts = [text for text in text_constants(node.left) if text.endswith((" ", "/", ":"))]
        else:
            continue
        if any(text.startswith(NAME_PARTS) or text.lstrip(": ").startswith(NAME_PARTS) for text in texts):
            found.add(node.lineno)
    return sorted(found)


@every_source
def test_no_code_takes_a_name_apart_by_text(path):
    """`equiv.core.output_name` has types for them: ask for `output.kind`, `output.leaf`, `output.program`."""
    if relative(path) not in READS_TEXTS:
        assert name_reads(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        'place.startswith("train: ")',
        'program, _, output = place.partition(": ")',
        'name.startswith(("batch/", "draw/"))',
        'output.removeprefix("state ")',
        'name.startswith(f"gradient {leaf}")',
        '": gradient " in place',
        'path.removeprefix("opt_state/")',
        'place.removeprefix("after training, ")',
        'program.startswith(("eval ", "call "))',
        'finding.place.startswith("moving ")',
        """x.split('draw/')""",
    ],
)
def test_code_that_takes_a_name_apart_is_found(line):
    assert name_reads(ast.parse(line)) == [1]


@pytest.mark.parametrize("path", READS_TEXTS)
def test_a_file_that_may_read_names_does(path):
    assert name_reads(ast.parse((ROOT / path).read_text()))


@every_file
def test_a_file_has_a_docstring_with_its_purpose(path):
    assert (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].strip()


MACHINE = "|".join(
    rf"(^|[^[:alnum:]_.]){place}"
    for place in ("/" + "root/", "/" + "home/", "/" + "Users/", "/" + "tmp/env", "C:" + r"\\")
)
REGISTRY = "|".join(("index" + "-url", "trusted" + "-host", "artifact" + "ory", "/simple" + "/?$", "PIP_" + "INDEX"))


@pytest.mark.parametrize("pattern", [MACHINE, REGISTRY], ids=["machine", "registry"])
def test_no_tracked_file_names_a_machine_or_a_registry(pattern):
    """The patterns are put together from parts, so that this file does not match itself."""
    command = ["git", "grep", "--line-number", "-I", "--extended-regexp", pattern]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == ""


@pytest.mark.parametrize(
    "module",
    [
        "equiv.frontends.cli.main",
        "equiv.core.results",
        "equiv.core.headline",
        "equiv.report",
        "equiv.core.case",
        "equiv.core.case_files",
    ],
)
def test_what_reads_results_and_finds_cases_imports_no_jax(module):
    libraries = ("jax", "jaxlib", "flax", "haiku", "optax")
    code = f"import {module}, sys; print(*(name for name in {libraries} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list", "--help"], ["report", "--help"]], ids=" ".join
)
def test_help_is_given_without_jax(arguments):
    code = (
        "import sys\nfrom equiv.frontends.cli.main import main\n"
        "try:\n main(sys.argv[1:])\nfinally:\n assert 'jax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
