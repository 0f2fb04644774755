"""`equiv map`, `equiv check` and `equiv new`: what they print, write and refuse, and that a wrong map is refuted."""

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from helpers import just

import equiv
from equiv.backends.batches import resolve_batch
from equiv.errors import EquivError
from equiv.frontends.cli.inferred_case import BuilderArguments, parse_inputs
from equiv.frontends.cli.main import main
from equiv.infer.builders import locate_builder
from equiv.infer.import_path import ImportedBatch
from equiv.infer.session import infer_layers
from equiv.infer.table.case_writer import case_text

MODELS = """
import numpy as np
from flax import nnx


class Keyword(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(5, 4, rngs=rngs)


class Positional(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(5, 4, rngs=rngs)


def old():
    import haiku as hk
    import jax

    def forward(x):
        y = jax.nn.relu(hk.Linear(6, name="first")(x))
        z = jax.nn.tanh(hk.Linear(6, name="other")(y))
        return hk.Linear(4, name="last")(z + hk.Linear(6, name="middle")(y))

    return hk.without_apply_rng(hk.transform(forward))


def scaled():
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def forward(x):
        y = jax.nn.relu(hk.Linear(6, name="first")(x))
        z = jax.nn.tanh(hk.Linear(6, name="other")(y)) + hk.Linear(6, name="middle")(y)
        gain = hk.get_parameter("gain", (x.shape[0],), init=jnp.ones)
        return hk.Linear(4, name="last")(z * gain[:, None])

    return hk.without_apply_rng(hk.transform(forward))


def make(rngs, forgotten=False, exchanged=False):
    import jax

    class Model(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(5, 6, rngs=rngs)
            self.middle = nnx.Linear(6, 6, use_bias=not forgotten, rngs=rngs)
            self.other = nnx.Linear(6, 6, rngs=rngs)
            self.last = nnx.Linear(6, 4, rngs=rngs)

        def __call__(self, x):
            y = jax.nn.relu(self.first(x))
            one, two = (self.middle, self.other) if exchanged else (self.other, self.middle)
            return self.last(jax.nn.tanh(one(y)) + two(y))

    return Model()


def new(rngs):
    return make(rngs)


def forgetful(rngs):
    return make(rngs, forgotten=True)


def exchanged(rngs):
    return make(rngs, exchanged=True)


def wrong(rngs):
    import jax

    class Wrong(nnx.Module):
        def __init__(self):
            self.inner = make(rngs)

        def __call__(self, x):
            y = jax.nn.gelu(self.inner.first(x))
            return self.inner.last(jax.nn.tanh(self.inner.other(y)) + self.inner.middle(y))

    return Wrong()


def batch():
    return {"x": np.zeros((3, 5), "float32"), "labels": np.array([0, 2, 1], "int32")}


def sizes(width):
    return width


def nothing():
    return None


def broken():
    raise ValueError("no weights")


number = 3
ALREADY = None
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ports")
    (path / "inferred_models.py").write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def places(folder):
    return str(folder / "inferred_models.py:old"), str(folder / "inferred_models.py:new")


ALONE = ("--checks", "outputs") if just("outputs") else ()
"""For a comparison that is about outputs."""


def run(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)), env={"NO_COLOR": "1", "COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def mapped(folder, places):
    """`equiv map` with its file, run once."""
    return run("map", *places, "--input", "float32[3,5]", "-o", folder / "case_written.py")


def test_map_prints_the_count_the_table_and_the_verdict(mapped):
    """First line: all leaves and how they are known; then rows; then the run of the case."""
    code, out, _ = mapped
    assert code == 0
    first, *lines = out.splitlines()
    assert re.fullmatch(r"✓ Mapped: 8 leaves of haiku and 8 of nnx \(8 by position\) in \d+\.\d s\.", first)
    assert any(line.split() == ["first", "(linear)", "first", "first", "by", "position"] for line in lines)
    assert any(line.startswith("✓ Same: 1 comparison") for line in lines)


def test_map_shows_every_leaf_where_asked(places):
    """One line for each leaf, with its shape; the row is named once."""
    code, out, _ = run("map", *places, "--input", "float32[3,5]", "--leaves", "--no-run")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "first (linear) first/w [5, 6] first.kernel [5, 6] by position" in lines
    assert "first/b [6] first.bias [6] by position" in lines


def test_map_writes_a_case_that_runs(mapped, folder):
    """The file is the case that was certified, and a person can go on with it."""
    written = (folder / "case_written.py").read_text()
    assert 'linear("middle", haiku="middle", nnx="middle"),' in written
    assert "def nnx(rngs):\n    from inferred_models import new\n" in written
    assert "inferred_models" not in written.partition("def ")[0]
    assert run("list", folder / "case_written.py")[0] == 0


def test_check_gives_the_exit_code_of_a_run(folder, places):
    """Another activation: the map holds, the ports differ, and the inferred table is named as a possible reason."""
    code, out, _ = run("check", places[0], folder / "inferred_models.py:wrong", "--input", "x=float32[3,5]", *ALONE)
    assert code == 1
    assert out.startswith("✗ Not the same: 1 of 1 comparison")
    assert out.rstrip().endswith(
        "The layer table was inferred: a wrong row shows like this too. Look at it with equiv map."
    )


def test_check_says_first_what_is_against_the_names(folder, places):
    """Two layers exchanged in the code: the same function of other leaves, which no checkpoint read by names is."""
    code, out, _ = run("check", places[0], folder / "inferred_models.py:exchanged", "--input", "x=float32[3,5]", *ALONE)
    assert code == 0
    above, _, _ = out.partition("findings: ")
    line = next(line for line in above.splitlines() if line.startswith("structure: the leaves are paired against"))
    assert "of haiku and nnx" in line
    assert "middle/w is other.kernel" in line
    assert "other/b is middle.bias" in line
    assert line.endswith("and 1 more; weights that are loaded by name make another function of it")


def test_check_names_a_leaf_without_counterpart(folder, places):
    """A forgotten bias of a known layer: the case is run, and its structure names the leaf; no doubt about the map."""
    port = folder / "inferred_models.py:forgetful"
    code, out, _ = run("check", places[0], port, "--input", "float32[3,5]", *ALONE)
    assert code == 1
    assert next(line for line in out.splitlines() if line[0] == "✗").endswith(
        "First: inferred-nnx, structure, leaf middle/bias: haiku float32[6], nnx none: "
        "nnx has no counterpart of it; same where it is 0"
    )
    assert out.rstrip().endswith("Not mapped: haiku middle/b (params): nnx has no leaf of 6 elements left.")
    code, out, _ = run("map", places[0], port, "--input", "float32[3,5]")
    assert code == 1
    assert out.startswith("? Not mapped: 1 leaf. First: haiku middle/b (params): nnx has no leaf of 6 elements left.")


def test_check_names_a_leaf_that_no_row_can_have(folder, places):
    """A parameter that the other port lacks: the ports are different, and it is told where they are the same."""
    arguments = (folder / "inferred_models.py:scaled", places[1], "--input", "float32[3,5]")
    code, out, _ = run("check", *arguments, *ALONE, "--json", "--reports", folder / "out")
    result = json.loads(out)
    assert code == 1
    assert result["headline"].endswith(
        "structure, leaf gain: haiku float32[3], nnx none: nnx has no counterpart of it; same where it is 1"
    )
    assert json.loads((folder / "out" / "results.json").read_text())["verdict"] == "different"


def test_new_writes_what_it_knows_and_comments_the_rest(folder, places):
    """A leaf without a row is a comment in the file; a file that is there is not written over unasked."""
    target = folder / "case_new.py"
    arguments = ("new", places[0], folder / "inferred_models.py:forgetful", "--input", "float32[3,5]", "-o", target)
    code, out, _ = run(*arguments)
    assert code == 0
    assert out.startswith(f"{target}: 4 rows; 1 to be completed, as comments in layers. Next: equiv run")
    assert "# haiku middle/b (params): nnx has no leaf of 6 elements left" in target.read_text()
    code, _, err = run(*arguments)
    assert code == 2
    assert err == f"equiv: {target}: the file exists. Give another with -o, or pass --force to overwrite it.\n"


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["swapped", "turned"])
def test_a_planted_wrong_map_is_refuted(folder, places, kind):
    """Two rows exchanged, or a square kernel transposed: running the case says so."""
    inferred = infer_layers((locate_builder(places[0]), locate_builder(places[1])), {"x": "float32[3,5]"})
    written = case_text(inferred.draft, folder)
    if kind == "turned":
        row = 'linear("middle", haiku="middle", nnx="middle"),'
        assert row in written
        turned = (
            'parameter("middle.kernel", layouts={"nnx": {"": SwapAxes()}}, haiku="middle/w", nnx="middle.kernel"),'
            ' parameter("middle.bias", haiku="middle/b", nnx="middle.bias"),'
        )
        written = written.replace(row, turned).replace("import linear", "import linear, parameter")
        written = written.replace("from equiv.layers", "from equiv.layouts import SwapAxes\nfrom equiv.layers")
    else:
        changed = {"middle": "other", "other": "middle"}
        rows = [(row, changed.get(scope := row.layer.scopes["nnx"], scope)) for row in inferred.rows]
        swapped = tuple(
            replace(row, layer=replace(row.layer, scopes={**row.layer.scopes, "nnx": scope})) for row, scope in rows
        )
        written = case_text(replace(inferred.draft, rows=swapped), folder)
    path = folder / f"case_{kind}.py"
    path.write_text(written)
    assert equiv.run([path]).verdict == "different"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("inferred_models.py", "cannot be read. Write module:attribute or file.py:function."),
        ("absent.py:model", "no such file. Give file.py:function, with the path from here."),
        ("no_such_package:model", "there is no module 'no_such_package', here or installed. Fix its name, or give"),
        (
            "inferred_models.py:olt",
            "inferred_models has no 'olt'; it has Keyword, Positional, old, scaled, make, new, forgetful",
        ),
        ("inferred_models.py:sizes", "it requires the arguments 'width', which equiv does not pass. Give a function"),
        ("inferred_models.py:nothing", "it returned None. Give a function that returns what hk.transform gives"),
        ("inferred_models.py:number", "got 3. Give a function that returns what hk.transform gives, a function"),
        ("inferred_models.py:broken", "calling it raised ValueError: no weights. Fix"),
        ("pathlib:Path", "the class Path is no model of a known library. Give a function that returns"),
    ],
)
def test_an_unusable_place_is_named_with_its_fix(folder, monkeypatch, given, message):
    """Who, what and the fix, for everything that can be given in place of a builder."""
    monkeypatch.chdir(folder)
    with pytest.raises(EquivError, match=re.escape(message)):
        locate_builder(given)


def test_a_file_that_another_module_hides_is_refused(tmp_path):
    """A file called like an imported module would never be the one that is loaded."""
    (tmp_path / "json.py").write_text("def model(): ...\n")
    with pytest.raises(EquivError, match=r"is called 'json' too and is imported in its place. Rename the file."):
        locate_builder(f"{tmp_path}/json.py:model")


def test_an_nnx_class_gets_its_rngs_as_it_takes_them(folder, monkeypatch):
    """A class whose rngs are a keyword is called so in the case, too; one that asks for more is refused."""
    monkeypatch.chdir(folder)
    assert locate_builder("inferred_models:Positional").code == "{name}(rngs)"
    assert locate_builder("inferred_models:Keyword").code == "{name}(rngs=rngs)"
    with pytest.raises(EquivError, match=r"flax.nnx:Linear: it requires the arguments 'in_features', 'out_features'"):
        locate_builder("flax.nnx:Linear")


@pytest.mark.slow
def test_two_models_of_one_library_are_compared(places, folder):
    """Their ports are named after the builders, and a changed activation shows."""
    code, out, _ = run("check", places[0], places[0], "--input", "float32[3,5]")
    assert (code, out.startswith("✓ Same: 1 comparison")) == (0, True)
    code, out, _ = run("check", places[1], folder / "inferred_models.py:wrong", "--input", "float32[3,5]")
    assert (code, "wrong / new" in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no batch: nothing can be traced. Give --input 'float32[8,784]' or --batch file.py:function."),
        (("--input", "float32[3,"), "batch entry 'x': cannot parse 'float32[3,'."),
        (("--input", "int32[3]"), "batch entry 'x': 'int32[3]' has no upper bound, and no table is looked up with it"),
        (("--input", "a b=float32[3,5]"), "--input 'a b=float32[3,5]': 'a b' is not an identifier. Write name="),
        (
            ("--input", "float32[3,5]", "--input", "x=float32[3]"),
            "x is given twice, first as 'float32[3,5]'. Rename one.",
        ),
        (
            ("--input", "float32[3,5]", "--method", "encode"),
            "--method 'encode': cannot be read: it is no call of a method. Write a call with inputs",
        ),
        (
            ("--input", "float32[3,5]", "--method", "encode(z)"),
            "method encode takes 'z', which is no input; the batch has x.",
        ),
        (
            ("--input", "float32[3,5]", "--batch", "m:f"),
            "--batch m:f and --input 'float32[3,5]' are both given. Leave one",
        ),
        (("--input", "float32[3,7]"), "nnx: tracing raised TypeError: dot_general requires contracting dimensions"),
    ],
)
def test_an_unusable_batch_is_named_with_its_fix(places, arguments, message):
    """Errors of the command leave with 2 and one message."""
    code, out, err = run("check", *places, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_batches_are_read_from_text_and_from_functions(folder):
    """The first entry is x; integers of a function are bounded by their largest value."""
    assert parse_inputs(["float32[3,5]", "tokens=int32[3]:9"]) == {"x": "float32[3,5]", "tokens": "int32[3]:9"}
    place = str(folder / "inferred_models.py:batch")
    case = BuilderArguments("m:a", "m:b", batch=place, methods=("encode(x, 2)",), keep=("labels, x", "y")).read_case()
    assert (case.methods, case.keep) == (("encode(x, 2)",), ("labels", "x", "y"))
    found = resolve_batch(replace(case, keep=("labels",))).batch
    assert found["x"] == "float32[3,5]"
    assert (found["labels"].values.tolist(), found["labels"].source) == ([0, 2, 1], place)
    nothing = replace(case, batch=ImportedBatch(str(folder / "inferred_models.py:nothing")))
    with pytest.raises(EquivError, match=r"the batch is None. Return an array, or a dictionary of names to arrays."):
        resolve_batch(nothing)


def test_a_sequence_is_calls_between_semicolons():
    """A text of a call may hold one, too."""
    calls = ("prefill(x[:, :8], ';'); decode(x[:, 8:9])", "__call__(x)")
    sequences = BuilderArguments("m:a", "m:b", ("f32[2,9]",), sequences=calls).read_case().sequences
    assert {name: one.texts for name, one in sequences.items()} == {
        "sequence 1": ("prefill(x[:, :8], ';')", "decode(x[:, 8:9])"),
        "sequence 2": ("__call__(x)",),
    }
    for wrong in ("__call__(x); 3+", "", "x; __call__(x)"):
        with pytest.raises(EquivError, match=r"--sequence '.*': cannot be read"):
            BuilderArguments("m:a", "m:b", ("f32[2,9]",), sequences=(wrong,)).read_case()
