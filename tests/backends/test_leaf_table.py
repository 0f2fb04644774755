"""Mapping: every leaf of every port of every case, once and exactly; each error says who, what, where and the fix."""

from functools import cache

import jax
import numpy as np
import pytest
from helpers import CASES, loaded
from infer_ports import pure

from equiv.backends import registry
from equiv.backends.base import Port
from equiv.backends.leaf_table import map_port, to_canonical_variables, to_native_leaves
from equiv.core.case import Layer
from equiv.core.layers import batch_norm, conv_transpose, linear, module, parameter, state
from equiv.core.leaves import NativeKey
from equiv.errors import CaseError, PortError
from equiv.programs.built_case import build_case
from equiv.programs.probes import numpy_dtype

NAMES = sorted(path.stem for path in CASES.glob("*.py"))
PORTS = [(name, backend) for name in NAMES for backend in loaded(name).case.models]


@cache
def workshop(name):
    return build_case(loaded(name).case)


@pytest.fixture(params=PORTS, ids=lambda port: "-".join(port))
def built(request):
    """A port of a case of the suite with its leaf table; no parameter is made."""
    name, backend = request.param
    assert not workshop(name).problems
    return workshop(name).built[backend]


def random_native(built):
    """Random bits for every leaf that is no random state: NaN payloads and negative zeros included."""
    rng = np.random.default_rng(0)
    arrays = {}
    for key, struct in built.port.leaves.items():
        if built.port.collections[key] == "random":
            continue
        dtype = numpy_dtype(str(struct.dtype))
        size = int(np.prod(struct.shape, dtype=int)) * dtype.itemsize
        arrays[key] = np.frombuffer(rng.bytes(size), dtype).reshape(struct.shape)
    return arrays


def test_native_to_canonical_and_back_is_bit_for_bit(built):
    native = random_native(built)
    back = to_native_leaves(built.table, to_canonical_variables(built.table, native))
    assert set(back) == set(native)
    for key, array in native.items():
        assert (back[key].shape, back[key].dtype) == (array.shape, array.dtype)
        assert back[key].tobytes() == array.tobytes()


def test_every_leaf_is_covered_exactly_once(built):
    """By its place, by its name, and with the collection that the port says; random state has no name."""
    keys = [leaf.key for leaf in built.table.leaves]
    wanted = [key for key in built.port.leaves if built.port.collections[key] != "random"]
    assert sorted(keys) == sorted(wanted)
    assert len(set(built.table.names())) == len(keys)
    for leaf in built.table.leaves:
        assert leaf.native_shape == built.port.leaves[leaf.key].shape
        assert leaf.spec.dtype == str(built.port.leaves[leaf.key].dtype)
        assert leaf.spec.collection == built.port.collections[leaf.key]


@pytest.mark.parametrize("name", NAMES)
def test_the_ports_of_a_case_share_names_shapes_and_dtypes(name):
    tables = [
        {leaf.name: (leaf.spec.shape, leaf.spec.dtype) for leaf in built.table.leaves if not leaf.library_only}
        for built in workshop(name).built.values()
    ]
    assert all(table == tables[0] for table in tables)


def linen_port(**shapes):
    """A Linen port of float32 leaves, never run: `block_kernel=(3, 4)` is `params` `block/kernel`."""
    leaves = {
        NativeKey("batch_stats" if name.endswith(("mean", "var")) else "params", name.replace("_", "/")): shape
        for name, shape in shapes.items()
    }
    structs = {key: jax.ShapeDtypeStruct(shape, "float32") for key, shape in leaves.items()}
    collections = {key: "params" if key.collection == "params" else "state" for key in leaves}
    return Port("linen", "linen", structs, collections, False, None, None, None, None, True)


def mapped(*layers, **shapes):
    return map_port(layers, linen_port(**shapes), registry.load_library("linen"))


DENSE = {"dense_kernel": (3, 4), "dense_bias": (4,)}


def test_rows_of_every_kind_find_their_leaves():
    table = mapped(
        linear("a", linen="dense"),
        batch_norm("n", linen="norm"),
        module("m", "up", "down", linen="lora"),
        parameter("p", linen="temperature"),
        state("s", linen="batch_stats/mean"),
        **DENSE,
        **{f"norm_{leaf}": (4,) for leaf in ("scale", "bias", "mean", "var")},
        lora_up=(3, 2),
        lora_down=(2, 4),
        temperature=(),
        mean=(),
    )
    assert table.names("params") == ("a/kernel", "a/bias", "n/scale", "n/bias", "m/up", "m/down", "p")
    assert table.names("state") == ("n/mean", "n/var", "s")
    assert table["s"].key == NativeKey("batch_stats", "mean")


def test_a_wrong_scope_is_an_error_that_names_the_closest():
    with pytest.raises(
        CaseError,
        match=r"linen: row a \(linear\) says 'dence', but the model has no such leaf there; "
        r"closest is 'dense/(kernel|bias)'\. Fix the scope",
    ):
        mapped(linear("a", linen="dence"), **DENSE)


def test_a_wrong_scope_without_leaves_is_still_reported():
    """Of a model without leaves."""
    with pytest.raises(CaseError, match=r"row a \(linear\) says 'dense'.*closest is 'nothing'"):
        mapped(linear("a", linen="dense"))


def test_an_uncovered_leaf_is_an_error_naming_it_with_shape():
    with pytest.raises(
        CaseError,
        match=r"linen: no row of the layer table covers out/kernel \(params\) float32\[4, 2\] "
        r"\(1 of 3 leaves\)\. Add a row",
    ):
        mapped(linear("a", linen="dense"), **DENSE, out_kernel=(4, 2))


def test_of_many_uncovered_leaves_the_first_three_are_named():
    with pytest.raises(CaseError, match=r"covers a/w .*, b/w .*, c/w .*float32\[1\], \.\.\. \(5 of 7 leaves\)"):
        mapped(linear("a", linen="dense"), **DENSE, **{f"{name}_w": (1,) for name in "abcde"})


def test_a_layout_that_needs_more_axes_is_an_error():
    """One row of a kernel has no two axes to swap, as a transposed convolution does: no IndexError of ours."""
    port = pure("haiku", lambda p, x: x, **{"up/w": (1, 8)})
    said = r"row a \(conv_transpose\) says 'up\[0\]', but up/w \(params\) has the shape \(8,\) there, .* more axes"
    with pytest.raises(CaseError, match=said):
        map_port((conv_transpose("a", haiku="up[0]"),), port, registry.load_library("haiku"))


def test_a_leaf_covered_by_two_rows_is_an_error():
    """It names both rows."""
    with pytest.raises(
        CaseError,
        match=r"linen: dense/kernel \(params\) is covered twice, by a/kernel and b/kernel\. "
        r"Give each layer its own scope",
    ):
        mapped(linear("a", linen="dense"), linear("b", linen="dense"), **DENSE)


def test_a_name_of_two_leaves_is_an_error():
    """The second would overwrite the first, which would then never be compared."""
    with pytest.raises(
        CaseError,
        match=r"linen: a/kernel is the name of two leaves, dense/kernel \(params\) and other/kernel \(params\).*"
        r"Give each row of the layer table its own path",
    ):
        mapped(linear("a", linen="dense"), linear("a", linen="other"), **DENSE, other_kernel=(3, 4))


def test_a_row_without_a_scope_says_what_to_add():
    """For one of the backends."""
    with pytest.raises(CaseError, match=r'linen: row a has no scope for it\. Add linen="\.\.\." to the row'):
        mapped(linear("a", haiku="linear"), **DENSE)


def test_an_unknown_layer_kind_is_an_error_naming_known_ones():
    with pytest.raises(
        CaseError,
        match=r"linen: row a has the kind 'conv9', which linen does not have; it has attention, .*linear",
    ):
        mapped(Layer("a", "conv9", {"linen": "dense"}), **DENSE)


def values(**changed):
    """Values for `DENSE`, with some of them changed or, where None, left out."""
    arrays = {"a/kernel": np.ones((3, 4), "float32"), "a/bias": np.ones(4, "float32")}
    return {name: array for name, array in {**arrays, **changed}.items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"a/kernel": np.ones((4, 3), "float32")},
            r"linen: cannot load a/kernel: got float32\[4, 3\], the model has float32\[3, 4\]\. Fix the layout",
        ),
        (
            {"a/bias": np.ones((1, 4), "float32")},
            r"linen: cannot load a/bias: got float32\[1, 4\], the model has float32\[4\]\. Fix",
        ),
        (
            {"a/bias": np.ones(4, "float64")},
            r"linen: cannot load a/bias: got float64\[4\], the model has float32\[4\]\. Fix",
        ),
        ({"a/bias": None}, r"linen: cannot load: a/bias float32\[4\] is missing\. Give it a value"),
        (
            {"a/scale": np.ones(4, "float32")},
            r"linen: cannot load a/scale: the model has no such leaf\. Remove it",
        ),
    ],
    ids=["shape", "unit-axis", "dtype", "missing", "unknown"],
)
def test_variables_that_do_not_fit_are_refused_with_both_sides(changed, message):
    table = mapped(linear("a", linen="dense"), **DENSE)
    with pytest.raises(PortError, match=message):
        to_native_leaves(table, values(**changed))


def test_a_float64_run_wants_float64_for_every_float():
    table = mapped(linear("a", linen="dense"), **DENSE)
    wide = {name: array.astype("float64") for name, array in values().items()}
    assert all(array.dtype == "float64" for array in to_native_leaves(table, wide, float64=True).values())
    with pytest.raises(PortError, match=r"cannot load a/kernel: got float32\[3, 4\], the model has float64\[3, 4\]"):
        to_native_leaves(table, values(), float64=True)
