"""Ports on meshes of eight devices, in a process of its own that has so many: sharded, and the same as on one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "mesh_run.py"
QUICK = ("honest on one mesh", "psum missing")
SLOW = ("honest", "psum missing in both", "other collectives", "nothing sharded", "not divisible")


def run(names) -> dict:
    """Name of a case to what was found."""
    done = subprocess.run([sys.executable, str(SCRIPT), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {case["name"]: case for case in json.loads(done.stdout)["cases"]}


@pytest.fixture(scope="module")
def quick():
    return run(QUICK)


@pytest.fixture(scope="module")
def slow():
    return run(SLOW)


def verdict(case) -> str:
    return next(iter(case["verdicts"].values()))


def sharding(case) -> dict:
    """The check."""
    return next(one for one in case["checks"] if one["check"] == "sharding")


def findings(case, grade) -> list[dict]:
    return [one for one in sharding(case)["findings"] if one["grade"] == grade]


def test_sharded_ports_compute_what_they_do_on_one_device(quick):
    """The forward pass takes three leaves and x, of which the mesh divides all."""
    case = quick["honest on one mesh"]
    assert (verdict(case), sharding(case)["grade"]) == ("same", "rounding")
    places = [one["place"] for one in sharding(case)["findings"]]
    wanted = [f"{port} on the mesh data 2 x model 4: call __call__: output" for port in ("linen", "nnx")]
    assert places == ["leaf up/kernel", "leaf stack/kernel", "leaf down/kernel", *wanted]
    (mesh,) = case["scope"]["meshes"]
    assert mesh["sharded"] == {"linen": 4, "nnx": 4}


@pytest.mark.slow
def test_one_two_and_eight_devices_in_one_run(slow):
    """The train step takes the leaves, a slot of each, and x."""
    case = slow["honest"]
    assert (verdict(case), sharding(case)["grade"]) == ("same", "rounding")
    meshes = {one["mesh"]: one["sharded"] for one in case["scope"]["meshes"]}
    assert meshes == {
        "data 1 x model 1": {"linen": 0, "nnx": 0},
        "data 2 x model 1": {"linen": 2, "nnx": 2},
        "data 2 x model 4": {"linen": 11, "nnx": 11},
        "data 8 x model 1": {"linen": 2, "nnx": 2},
    }
    places = [one["place"] for one in sharding(case)["findings"]]
    for mesh in meshes:
        assert sum(f"on the mesh {mesh}: " in place for place in places) == 4


def test_a_missing_psum_is_refuted_on_the_mesh(quick):
    case = quick["psum missing"]
    assert verdict(case) == "different"
    assert {one["check"] for one in case["checks"] if one["grade"] == "refuted"} == {"sharding"}
    (finding,) = findings(case, "refuted")
    assert finding["place"].startswith("right on the mesh data 2 x model 4: call __call__: output")
    assert "on one device it computes" in finding["note"]
    assert "jax.lax.psum" in finding["note"]


@pytest.mark.slow
def test_a_fault_of_both_ports_is_an_error_of_both(slow):
    case = slow["psum missing in both"]
    assert verdict(case) == "error"
    assert len(findings(case, "error")) == 2
    assert "left does the same" in findings(case, "error")[1]["note"]


@pytest.mark.slow
def test_other_collectives_are_a_remark(slow):
    case = slow["other collectives"]
    assert verdict(case) == "same"
    (remark,) = sharding(case)["remarks"]
    assert remark.startswith(
        "on the mesh data 2 x model 4, call __call__: left has 1 all-reduce (256 bytes); right has "
    )
    assert "all-gather (" in remark


@pytest.mark.slow
def test_a_mesh_on_which_nothing_is_sharded_is_no_pass(slow):
    case = slow["nothing sharded"]
    assert verdict(case) == "inconclusive"
    assert [one["place"] for one in findings(case, "not run")] == [
        "linen on the mesh elsewhere 2",
        "nnx on the mesh elsewhere 2",
    ]
    assert any("no rule says which axis of a mesh 'embed'" in remark for remark in sharding(case)["remarks"])


@pytest.mark.slow
def test_a_mesh_that_divides_no_leaf_is_an_error(slow):
    case = slow["not divisible"]
    assert verdict(case) == "error"
    assert "divisible" in findings(case, "error")[0]["note"]
