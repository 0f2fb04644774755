"""Probes: no value that hides a fault, batch entries that cannot be read are said, a nudge is an ulp."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.backends import registry
from equiv.backends.base import Port
from equiv.backends.leaf_table import map_port
from equiv.core.batch_spec import FLOAT_DTYPES, BatchEntry, parse_batch
from equiv.core.layers import batch_norm
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.errors import CaseError
from equiv.programs.probes import (
    Probe,
    add_library_only_leaves,
    make_probe,
    numpy_dtype,
    perturb_by_ulp,
    to_float64,
    ulp,
)


@pytest.mark.parametrize(
    ("text", "shape", "dtype", "bound"),
    [
        ("float32[8,784]", (8, 784), "float32", 2),
        (" bfloat16[ 2 , 3 ] ", (2, 3), "bfloat16", 2),
        ("float32[]", (), "float32", 2),
        ("float64[3,]", (3,), "float64", 2),
        ("int32[8]:10", (8,), "int32", 10),
        ("f32[2]", (2,), "float32", 2),
        ("bf16[2]", (2,), "bfloat16", 2),
        ("u8[2]:9", (2,), "uint8", 9),
        ("uint8[8,2]:255", (8, 2), "uint8", 255),
        ("bool[4]", (4,), "bool", 2),
    ],
    ids=lambda value: str(value).replace(" ", "") if isinstance(value, str) else "",
)
def test_a_batch_entry_says_dtype_shape_and_bound(text, shape, dtype, bound):
    assert parse_batch({"x": text}) == {"x": BatchEntry(LeafSpec(shape, dtype), bound)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8,784", r"cannot parse '8,784'\. Write \"float32\[8,784\]\" or \"int32\[8\]:10\""),
        ("float32[8", r"cannot parse 'float32\[8'\. Write"),
        ("float32[8 784]", r"cannot parse 'float32\[8 784\]'\. Write"),
        ("float32[8,,784]", r"cannot parse 'float32\[8,,784\]'\. Write"),
        ("float32[,]", r"cannot parse 'float32\[,\]'\. Write"),
        ("float32[-1]", r"cannot parse 'float32\[-1\]'\. Write"),
        ("int32[8]:-1", r"cannot parse 'int32\[8\]:-1'\. Write"),
        ("", r"cannot parse ''\. Write"),
        ("float33[8]", r"no dtype 'float33'\. Write a numpy dtype name, e\.g\. float32 or int32, or a short one, f32"),
        ("complex32[8]", r"no dtype 'complex32'\. Write"),
        ("float32[8,0]", r"'float32\[8,0\]' is empty: nothing would be compared\. Give every axis a size"),
        ("i32[8]", r"'int32\[8\]' has no upper bound, and no table is looked.*\. Write e\.g\. \"int32\[8\]:10\""),
        ("int32[8]:0", r"'int32\[8\]:0' has no value below 0\. Write \"int32\[8\]:10\", or no bound"),
        ("int8[8]:1000", r"'int8\[8\]:1000' does not fit\. Write a bound up to 127"),
    ],
    ids=[
        *("no-dtype", "open", "spaces", "two-commas", "comma-only", "negative", "negative-bound", "nothing", "float33"),
        *("complex", "empty", "no-bound", "zero-bound", "bound-too-large"),
    ],
)
def test_an_unusable_batch_entry_is_named_with_the_fix(text, message):
    with pytest.raises(CaseError, match=f"batch entry 'x': {message}"):
        parse_batch({"ok": "float32[2]", "x": text})


def leaf(name, shape, dtype="float32", collection="params", **own):
    key = NativeKey(collection, name)
    return MappedLeaf(name, key, Identity(), LeafSpec(shape, dtype, collection), shape, **own)


TABLE = LeafTable(
    "haiku",
    (
        *(leaf(f"{dtype}/kernel", (16, 8), dtype) for dtype in FLOAT_DTYPES),
        *(leaf(f"{dtype}/bias", (8,), dtype) for dtype in FLOAT_DTYPES),
        leaf("temperature", ()),
        leaf("norm/var", (64,), collection="state"),
        leaf("count", (), "int32", "state"),
        leaf("norm/var.hidden", (64,), collection="state", mirrors="norm/var"),
        leaf("norm/var.counter", (), "int32", "state", fixed_value=2**30),
    ),
)
ENTRIES = parse_batch({"x": "float32[4,6]", "labels": "int32[400]:3", "mask": "bool[400]", "half": "bfloat16[4]"})


def probe(seed=1, **options):
    return make_probe("0", seed, TABLE, ENTRIES, 3, **options)


def test_a_probe_has_every_shared_leaf_with_shape_and_dtype():
    variables = probe().variables
    shared = {leaf.name: leaf.spec for leaf in TABLE.leaves if not leaf.library_only}
    assert {name: LeafSpec(array.shape, str(array.dtype)) for name, array in variables.items()} == {
        name: LeafSpec(spec.shape, spec.dtype) for name, spec in shared.items()
    }


def test_a_probe_has_a_different_batch_for_each_step():
    batches = probe().batches
    assert {name: (array.shape, str(array.dtype)) for name, array in batches.items()} == {
        "x": ((3, 4, 6), "float32"),
        "labels": ((3, 400), "int32"),
        "mask": ((3, 400), "bool"),
        "half": ((3, 4), "bfloat16"),
    }
    for array in batches.values():
        assert not np.array_equal(array[0], array[1])
        assert not np.array_equal(array[1], array[2])
    assert set(batches["labels"].ravel()) == {0, 1, 2}
    assert set(batches["mask"].ravel()) == {False, True}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_no_leaf_holds_what_libraries_start_from(seed):
    """Zeros and ones hide half of all swapped leaves; in bfloat16 one in some hundred comes out as 1 by chance."""
    for array in probe(seed).variables.values():
        wide = array.astype("float64")
        assert np.isfinite(wide).all()
        assert np.mean(np.isin(wide, (0, 1))) < 0.5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_state_is_positive_since_a_variance_has_to_be(seed):
    variables = probe(seed).variables
    assert variables["norm/var"].min() > 0
    assert variables["count"] > 0


def test_values_of_a_leaf_and_leaves_are_all_different():
    kernels = [probe().variables[f"{dtype}/kernel"] for dtype in ("float32", "float64")]
    assert all(len(np.unique(kernel)) == kernel.size for kernel in kernels)
    assert not np.allclose(*kernels)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 2**31))
def test_probes_of_two_seeds_differ_in_every_leaf_and_entry(seed, apart):
    one, other = probe(seed), probe(seed + apart)
    for left, right in ((one.variables, other.variables), (one.batches, other.batches)):
        for name, array in left.items():
            assert array.size == 1 or not np.array_equal(array, right[name])


def test_a_probe_repeats_for_its_seed():
    one, other = probe(), probe()
    for name, array in {**one.variables, **one.batches}.items():
        np.testing.assert_array_equal(array, {**other.variables, **other.batches}[name])


def test_spread_shrinks_parameters_and_nothing_else():
    plain, half = probe().variables, probe(spread=0.5).variables
    for name in ("float32/kernel", "float64/bias", "temperature"):
        np.testing.assert_allclose(half[name], plain[name] / 2)
    np.testing.assert_array_equal(half["norm/var"], plain["norm/var"])


def test_a_deep_kernel_keeps_the_size_of_its_inputs():
    """Its gain stays below one, so that a deep model does not overflow: 0.8, and 0.3 for the mean."""
    kernel = make_probe("0", 1, LeafTable("haiku", (leaf("kernel", (400, 300)),)), {}, 1).variables["kernel"]
    assert 0.75 < np.std(kernel) * 20 < 0.85
    assert 0.1 < np.mean(kernel) * 400 < 0.5


VALUES = st.lists(st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3), min_size=1, max_size=8)


def spacing(array):
    """The distance between floats of the array's own dtype, in the binade that each value is in."""
    wide = np.abs(array.astype("float64"))
    return 2.0 ** np.floor(np.log2(wide)) * ulp(array.dtype)


@settings(deadline=None, max_examples=200)
@given(VALUES, st.sampled_from(FLOAT_DTYPES), st.integers(0, 5))
def test_a_nudge_moves_every_float_by_one_ulp_or_two(values, dtype, seed):
    array = np.array(values).astype(numpy_dtype(dtype))
    moved = perturb_by_ulp(Probe("0", 1, {"a": array}, {"b": array}), seed)
    for after in (moved.variables["a"], moved.batches["b"]):
        assert after.dtype == array.dtype
        steps = np.abs(after.astype("float64") - array.astype("float64")) / spacing(array)
        assert steps.max() <= 2
        assert steps.min() >= 1


@settings(deadline=None, max_examples=100)
@given(VALUES, st.sampled_from(["float32", "bfloat16", "float16"]), st.integers(0, 5))
def test_a_nudge_for_a_float64_run_is_a_float64_ulp(values, dtype, seed):
    array = np.array(values).astype(numpy_dtype(dtype))
    after = perturb_by_ulp(Probe("0", 1, {"a": array}, {}), seed, "float64").variables["a"]
    assert after.dtype == "float64"
    relative = np.abs(after / array.astype("float64") - 1)
    np.testing.assert_allclose(relative, 2.0**-52, rtol=0.5)


def test_nudges_go_both_ways_and_differ_from_seed_to_seed():
    array = np.full(64, 1.5, "float32")
    one, other = (perturb_by_ulp(Probe("0", 1, {"a": array}, {}), seed).variables["a"] for seed in (0, 1))
    assert (one > 1.5).any()
    assert (one < 1.5).any()
    assert not np.array_equal(one, other)


def test_a_nudge_leaves_whole_numbers_alone():
    arrays = {"count": np.array([3], "int32"), "mask": np.array([True])}
    for dtype in (None, "float64"):
        moved = perturb_by_ulp(Probe("0", 1, arrays, arrays), 0, dtype)
        assert moved.variables == arrays
        assert moved.batches == arrays


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_an_ulp_is_the_distance_to_the_next_float(dtype):
    one = np.ones((), numpy_dtype(dtype))
    step = np.array(ulp(one.dtype)).astype(one.dtype)
    assert one + step > one
    assert one + step / one.dtype.type(2) == one


@settings(deadline=None, max_examples=50)
@given(VALUES, st.sampled_from(FLOAT_DTYPES))
def test_widening_is_exact_and_leaves_whole_numbers_alone(values, dtype):
    array = np.array(values).astype(numpy_dtype(dtype))
    wide = to_float64({"a": array, "count": np.array([3], "int32")})
    assert wide["a"].dtype == "float64"
    assert wide["a"].astype(array.dtype).tobytes() == array.tobytes()
    assert wide["count"].dtype == "int32"


def test_what_is_float64_already_is_not_copied():
    for dtype in ("float64", "complex128"):
        array = np.ones(3, dtype)
        assert to_float64({"a": array})["a"] is array


def test_library_only_leaves_are_filled_with_their_converged_values():
    shared = {"norm/var": np.arange(64, dtype="float32")}
    filled = add_library_only_leaves(TABLE, shared)
    np.testing.assert_array_equal(filled["norm/var.hidden"], shared["norm/var"])
    assert (filled["norm/var.counter"], filled["norm/var.counter"].dtype) == (2**30, "int32")
    assert set(shared) == {"norm/var"}


def test_given_values_of_such_leaves_are_kept():
    given_values = {"norm/var": np.ones(64), "norm/var.hidden": np.zeros(64), "norm/var.counter": np.array(7)}
    assert add_library_only_leaves(TABLE, given_values) == given_values


def test_haikus_averages_settle_at_the_shared_ones():
    """`average = hidden / (1 - decay**counter)` gives `hidden` back, whatever the decay."""
    structs = {
        "params": {"norm/scale": (1, 3), "norm/offset": (1, 3)},
        "state": {
            **{f"norm/~/{name}_ema/{leaf}": (1, 3) for name in ("mean", "var") for leaf in ("average", "hidden")},
            **{f"norm/~/{name}_ema/counter": () for name in ("mean", "var")},
        },
    }
    leaves = {
        NativeKey(collection, path): np.zeros(shape, "int32" if path.endswith("counter") else "float32")
        for collection, paths in structs.items()
        for path, shape in paths.items()
    }
    port = Port("haiku", "haiku", leaves, {key: key.collection for key in leaves}, True, None, None, None, None, True)
    table = map_port((batch_norm("n", haiku="norm"),), port, registry.load_library("haiku"))
    filled = add_library_only_leaves(table, make_probe("0", 1, table, {}, 1).variables)
    assert set(filled) == set(table.names())
    for name in ("mean", "var"):
        hidden, counter = filled[f"n/{name}.hidden"], filled[f"n/{name}.counter"]
        np.testing.assert_array_equal(hidden, filled[f"n/{name}"])
        for decay in (np.float32(0.9), np.float32(0.999999), np.float64(0.999999)):
            np.testing.assert_array_equal(hidden / (1 - decay**counter), filled[f"n/{name}"])
