"""Layer tables: inferred from the suite's own builders, they say what the cases' authors wrote."""

from functools import cache
from pathlib import Path

import haiku as hk
import infer_models
import jax
import numpy as np
import pytest
from infer_ports import asked, pure

from equiv.backends.build import build_port, port_spec
from equiv.core.batch_spec import KeptValues
from equiv.core.case_files import CaseFile, load_case
from equiv.core.layouts import SwapAxes
from equiv.infer.builders import LocatedBuilder
from equiv.infer.import_path import ImportedBatch, ImportPath
from equiv.infer.matching.propose import propose
from equiv.infer.session import infer_layers
from equiv.infer.table.case_writer import CaseDraft, case_text
from equiv.infer.table.rows import infer_rows

CASES = Path(__file__).parents[2] / "cases"
NAMES = (
    "batch_norm", "counter", "custom_linear", "lora", "rnn_scan", "scan_over_layers", "stateful_linear",
    "layers/attention", "layers/conv_channels_first", "layers/conv_transpose", "layers/conv_transpose_flipped",
    "layers/norm_rms", "layers/norm_spectral", "layers/rnn_lstm", "layers/rnn_lstm_packed", "layers/stacked_unrolled",
    "models/lstm_language_model",
)  # fmt: skip


@cache
def case(name):
    return load_case(CaseFile(name, CASES / f"{name}.py")).case


def held(table):
    """Canonical leaf to native leaf and the part of it."""
    return {
        leaf.name: (leaf.key, leaf.region or tuple((0, size) for size in leaf.native_shape))
        for leaf in table.leaves
        if not leaf.library_only
    }


@pytest.mark.quick(17)
@pytest.mark.parametrize("candidate", ["linen", "nnx"])
@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_mapped_as_its_author_wrote_it(name, candidate):
    """Every leaf of the case's own table, in parts where it is packed, and rows for all of them."""
    request, _ = port_spec(case(name))
    built = [build_port(case(name), backend, request) for backend in ("haiku", candidate)]
    left, right = (held(one.table) for one in built)
    proposal = propose((built[0].port, built[1].port), request, asked(case(name).batch)[1])
    pairs = {(pair.left, pair.bounds[0]): (pair.right, pair.bounds[1]) for pair in proposal.pairs}
    assert pairs == {left[leaf]: right[leaf] for leaf in left}
    found, problems = infer_rows(proposal)
    assert problems == ()
    assert all(one.dead for one in proposal.unpaired)
    covered = {key for row in found for key in row.keys[0]}
    assert covered == {key for key, kind in built[0].port.collections.items() if kind != "random"}


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("batch_norm", {"batch_norm", "linear"}),
        ("layers/attention", {"attention"}),
        ("layers/conv_transpose", {"conv_transpose"}),
        ("layers/norm_rms", {"rms_norm"}),
        ("layers/rnn_lstm", {"lstm"}),
        ("lora", {"batch_norm", "module"}),
        ("scan_over_layers", {"linear"}),
        ("stateful_linear", {"module", "state"}),
    ],
)
def test_rows_are_of_the_kind_that_a_person_would_take(name, functions):
    """A known layer is one row of its kind, the rest are modules, parameters and state."""
    request, _ = port_spec(case(name))
    ports = [build_port(case(name), backend, request).port for backend in ("haiku", "linen")]
    found, _ = infer_rows(propose((ports[0], ports[1]), request, asked(case(name).batch)[1]))
    assert {row.function for row in found} == functions
    assert len(found) == len(case(name).layers)


def located(backend, builder, name, folder=None):
    return LocatedBuilder(ImportPath("my_models", name, folder), backend, builder, "", "{name}()")


@cache
def batch_norm():
    """What is inferred of the guide's batch norm."""
    models = case("batch_norm").models
    builders = located("haiku", models["haiku"], "old.model"), located("nnx", models["nnx"], "New")
    return infer_layers(builders, {"inputs": "float32[6,784]"})


def test_the_file_is_as_a_person_would_write_it(tmp_path):
    """Lesson, imports, builders, rows across, and the formula for Haiku's averages with the decay of the program."""
    assert (
        case_text(batch_norm().draft, tmp_path)
        == '''"""New (nnx) is old.model (haiku)."""

from equiv.case import Case, zero_debias
from equiv.layers import batch_norm, linear


def haiku():
    from my_models import old

    return old.model()


def nnx():
    from my_models import New

    return New()


CASE = Case(
    guide="my own port",
    models={"haiku": haiku, "nnx": nnx},
    batch={"inputs": "float32[6,784]"},
    layers=(
        linear("block.linear", haiku="model/block/linear", nnx="block.linear"),
        batch_norm("block.batchnorm", haiku="model/block/batch_norm", nnx="block.batchnorm"),
        linear("linear", haiku="model/linear", nnx="linear"),
    ),
    known_differences=(
        *zero_debias("block.batchnorm", decay=0.99),
    ),
)
'''
    )


def test_layouts_parts_and_folders_are_written_out(tmp_path):
    """A layout that no kind has, builders in another folder and of one name, methods, what is missing: valid Python."""
    left = pure("haiku", lambda p, x: x @ p["deep/w"] + p["deep/b"], **{"deep/w": (8, 4), "deep/b": (4,)})
    right = pure("nnx", lambda p, x: x @ p["deep.v"].T + p["deep.c"], **{"deep.v": (4, 8), "deep.c": (4,)})
    found, problems = infer_rows(propose((left, right), *asked({"x": "float32[2,8]"})))
    builders = tuple(located(name, None, "model", tmp_path / "models" / name) for name in ("haiku", "nnx"))
    builders = (
        builders[0],
        LocatedBuilder(
            ImportPath("others", "model", builders[1].import_path.folder), "nnx", None, "rngs", "{name}(rngs)"
        ),
    )
    draft = CaseDraft(
        "A lesson.", ("haiku", "nnx"), builders, {"x": "float32[2,8]"}, {"encode": ("x",)}, found, (), ("haiku a: why",)
    )
    written = case_text(draft, tmp_path / "cases")
    compile(written, "case.py", "exec")
    assert problems == ()
    assert 'parameter("v", layouts={"haiku": {"": SwapAxes()}}, haiku="deep/w", nnx="deep.v"),' in written
    assert "from equiv.layouts import SwapAxes" in written
    assert 'sys.path.append(str(Path(__file__).parent / "../models/haiku"))' in written
    assert "def nnx(rngs):\n    from others import model\n\n    return model(rngs)\n" in written
    assert 'methods={"encode": ("x",)},' in written
    assert "        # haiku a: why" in written


def test_kept_values_are_read_from_their_function(tmp_path):
    """A case file has no arrays: it imports the function that gives them, wherever that is."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "masks.py").write_text("")
    given = ImportedBatch(str(tmp_path / "data" / "masks.py:causal"))
    kept = KeptValues(np.ones(2, bool), given.import_path)
    builders = tuple(located(name, None, "model", tmp_path / "cases") for name in ("haiku", "nnx"))
    draft = CaseDraft("A lesson.", ("haiku", "nnx"), builders, {"x": "f32[2]", "p": (kept, None)}, ("f(x, p, n=None)",))
    written = case_text(draft, tmp_path / "cases")
    compile(written, "case.py", "exec")
    assert 'sys.path.append(str(Path(__file__).parent / "../data"))' in written
    assert "def batch():\n    from masks import causal as given\n\n    return given()\n" in written
    assert '    batch=batch,\n    keep=("p/0",),\n    methods=("f(x, p, n=None)",),\n' in written


def test_a_kind_is_not_used_for_a_leaf_stored_otherwise():
    """Named like a linear layer, but kept the other way round: the rows say so instead of the kind."""
    left = pure("haiku", lambda p, x: x @ p["dense/w"] + p["dense/b"], **{"dense/w": (8, 8), "dense/b": (8,)})
    turned = pure(
        "nnx", lambda p, x: x @ p["dense.kernel"].T + p["dense.bias"], **{"dense.kernel": (8, 8), "dense.bias": (8,)}
    )
    found, problems = infer_rows(propose((left, turned), *asked({"x": "float32[2,8]"})))
    assert problems == ()
    assert {row.function: dict(row.arguments) for row in found if row.arguments} == {
        "parameter": {"layouts": {"haiku": {"": SwapAxes()}}}
    }
    assert "linear" not in {row.function for row in found}


def test_a_bias_before_its_scale_is_in_one_row():
    """A linear layer's bias has the same name; a row of that kind would leave the scale to a second one for both."""

    def port(library, dot):
        bias, scale, kernel = f"a{dot}bias", f"a{dot}scale", f"d{dot}kernel"
        shapes = {bias: (8,), scale: (8,), kernel: (8, 3)}
        return pure(library, lambda p, x: jax.nn.relu((x + p[bias]) * p[scale]) @ p[kernel], **shapes)

    found, problems = infer_rows(propose((port("linen", "/"), port("nnx", ".")), *asked({"x": "float32[2,8]"})))
    assert problems == ()
    assert {row.layer.path: row.function for row in found} == {"a": "layer_norm", "d": "linear"}


def test_items_of_a_stack_have_rows_of_their_own():
    """A scan on one side and layers one by one on the other: `wide[1]` is `blocks.1.wide`."""
    builders = (
        LocatedBuilder(ImportPath("m", "a", None), "haiku", infer_models.stack_haiku, "", "{name}()"),
        LocatedBuilder(ImportPath("m", "b", None), "nnx", infer_models.stack_nnx, "rngs", "{name}(rngs)"),
    )
    found = infer_layers(builders, {"x": "float32[2,5]"})
    assert found.complete
    scopes = {row.layer.scopes["haiku"]: row.layer.scopes["nnx"] for row in found.rows}
    assert scopes["__layer_stack_no_per_layer/wide[1]"] == "blocks.1.wide"
    assert {row.function for row in found.rows} == {"linear"}


def test_channels_first_is_said_of_one_of_two_ports():
    """Of one library: which of its layers have the channels first is said port by port."""

    def first():
        return hk.transform(lambda x: hk.Conv2D(4, 3, data_format="NCHW", name="conv")(x))

    def last():
        return hk.transform(lambda x: hk.Conv2D(4, 3, name="conv")(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))

    # Where both store the same shape, a plain row already says that the leaves are equal.
    said = {(first, last): {"channels_first": {"old": 2}}, (last, first): {"channels_first": {"new": 2}}}
    for builders, expected in (said | {(first, first): {}, (last, last): {}}).items():
        located = (LocatedBuilder(ImportPath("m", "model", None), "haiku", one, "", "{name}()") for one in builders)
        found = infer_layers(tuple(located), {"x": "float32[2,3,5,5]"})
        assert found.covered
        assert [(row.function, dict(row.arguments)) for row in found.rows] == [("conv", expected)]
