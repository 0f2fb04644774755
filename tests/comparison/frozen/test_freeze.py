"""A frozen reference judges ports as the living one does, without its library."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import helpers
import numpy as np
import pytest
from click.testing import CliRunner
from comparison.frozen.frozen_cases import NAMES, bundle, compare_with_frozen, grades
from helpers import CASES, loaded

from equiv.comparison.frozen.against import restore_reference
from equiv.comparison.frozen.bundle import decode_bundle, encode_bundle, environment_changes
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import CaseFile, load_case
from equiv.core.results import CaseResult
from equiv.core.results_json import read_results
from equiv.errors import EquivError
from equiv.frontends.cli.main import main


@cache
def living(name: str) -> CaseResult:
    return run_case(loaded(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_every_check_the_living_references_grade(name):
    result = compare_with_frozen(loaded(name), bundle(name))
    assert grades(result) == grades(living(name))
    assert result.verdicts == living(name).verdicts
    assert result.reference == f"frozen {bundle(name).port}"


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", NAMES)
def test_every_finding_is_the_living_ones(name):
    """Place by place: the same grade and the same rewrites."""

    def told(result):
        return {
            (c.check, c.candidate, f.place): (f.grade, f.note, f.rewrites) for c in result.checks for f in c.findings
        }

    ours, theirs = told(compare_with_frozen(loaded(name), bundle(name))), told(living(name))
    # What the guide prints of the frozen library is its own affair, and what its users run is not run again.
    own = (f"{bundle(name).port} prints", f"{bundle(name).port}: ")
    assert ours == {key: value for key, value in theirs.items() if not key[2].startswith(own)} | {
        key: value for key, value in ours.items() if key[2].startswith(own)
    }


def test_a_bundle_is_the_same_after_writing_and_reading():
    frozen = bundle("counter")
    again = decode_bundle(encode_bundle(frozen), "again")
    assert encode_bundle(again) == encode_bundle(frozen)
    for one, other in zip(frozen.probes, again.probes, strict=True):
        for ours, theirs in (
            (one.native, other.native),
            (one.float64, other.float64),
            (one.variables, other.variables),
        ):
            assert ours.keys() == theirs.keys()
            assert all(ours[name].dtype == theirs[name].dtype for name in ours)
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_fault_in_a_port_is_found_at_its_place():
    case = helpers.patched("counter", ("x + self.multiplier", "x - self.multiplier"))
    result = compare_with_frozen(replace(loaded("counter"), case=case), bundle("counter"))
    assert result.verdicts == {"linen": "same", "nnx": "different"}
    refuted = [f.place for c in result.checks for f in c.findings if f.grade == "refuted" and c.check == "outputs"]
    assert refuted[0] == "call __call__: output"


def test_names_of_another_prover_prove_nothing_and_numbers_decide():
    result = compare_with_frozen(loaded("custom_linear"), replace(bundle("custom_linear"), prover="another"))
    assert set(result.verdicts.values()) == {"same"}
    of_numbers = {grade for (_, check), grade in grades(result).items() if check in ("outputs", "gradients", "train")}
    assert of_numbers <= {"float64", "exact"}


def test_the_frozen_library_need_not_be_installed(tmp_path):
    """In a process that cannot import it, and from a case file that still holds its builder."""
    (tmp_path / "bundle").write_bytes(encode_bundle(bundle("custom_linear")))
    program = (
        "import sys\nsys.modules['haiku'] = None\nfrom equiv.frontends.cli.main import main\n"
        f"main(['run', {str(CASES / 'custom_linear.py')!r}, '--against', 'bundle', '--reports', '.'])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert ran.stdout.startswith("✓ Same: all 2 comparisons of 1 case.\n"), ran.stderr
    assert ran.returncode == 0
    (case,) = read_results(tmp_path / "results.json").cases
    assert case.reference == "frozen haiku"


def test_what_changed_in_the_environment_is_named():
    before = {**bundle("counter").environment, "jax": "0.1.0"}
    result = compare_with_frozen(loaded("counter"), replace(bundle("counter"), environment=before))
    (told,) = [trial.note for trial in result.trials if trial.kind == "environment"]
    assert told.startswith("jax: 0.1.0, now ")
    assert environment_changes({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ("b: 2, now unknown", "c: unknown, now 3")


def test_a_result_has_all_that_a_run_has():
    """Its file, builders, digest, errata and the places of every leaf: the report shows them as of a run."""
    case = replace(loaded("custom_linear"), path="cases/custom_linear.py")
    against = compare_with_frozen(case, bundle("custom_linear"))
    run = replace(living("custom_linear"), path=case.path)
    for name in ("name", "lesson", "guide", "path", "sources", "source_digest", "deviations", "unmapped_leaves"):
        assert getattr(against, name) == getattr(run, name), name
    assert against.sources
    for theirs, ours in zip(against.leaves, run.leaves, strict=True):
        assert theirs.places.pop("frozen haiku") == ours.places.pop("haiku")
        assert (theirs.leaf, theirs.places) == (ours.leaf, ours.places)


def test_a_missing_leaf_is_refuted_and_blocks_the_rest():
    """A leaf that the bundle has and the port has not."""
    frozen = bundle("custom_linear")
    extra = replace(frozen.leaves[0], name="more/kernel")
    result = compare_with_frozen(loaded("custom_linear"), replace(frozen, leaves=(*frozen.leaves, extra)))
    assert {grade for (_, check), grade in grades(result).items() if check == "structure"} == {"refuted"}
    assert {grade for (_, check), grade in grades(result).items() if check != "structure"} == {"blocked"}


ALONE = '''"""One model of the two, the other is not there."""

from equiv import Case
from equiv.layers import linear


def {name}():
    {imports}
    {model}


CASE = Case(
    guide="none",
    models={{"{name}": {name}}},
    batch={{"x": "float32[4,7]"}},
    layers=(linear("dense", old="dense", new="{scope}"),),
)
'''
OLD = {
    "name": "old",
    "scope": "dense",
    "imports": "import haiku as hk",
    "model": "return hk.transform(lambda x: hk.Linear(3, name='dense')(x))",
}
NEW = {
    "name": "new",
    "scope": "layers_0",
    "imports": "import flax.linen as nn",
    "model": "return nn.Sequential([nn.Dense(3), {after}])",
}


@pytest.mark.quick(1)
@pytest.mark.parametrize(("after", "code"), [("lambda x: x", 0), ("nn.relu", 1)])
def test_each_model_may_be_alone_in_its_case(tmp_path, after, code):
    """The old one is frozen, and the new one compared with it where the old library cannot be imported."""
    for values, path in ((OLD, tmp_path / "a" / "port.py"), (NEW, tmp_path / "b" / "port.py")):
        path.parent.mkdir()
        path.write_text(ALONE.format(**{**values, "model": values["model"].format(after=after)}))
    bundle_path = tmp_path / "port.equiv"
    ran = CliRunner().invoke(main, ["freeze", str(tmp_path / "a" / "port.py"), "-o", str(bundle_path)])
    assert (ran.exit_code, ran.stderr) == (0, "")
    script = (
        "import sys\nsys.modules['haiku'] = None\n"
        "from equiv.frontends.cli.main import main\nmain(sys.argv[1:], prog_name='equiv')"
    )
    arguments = ["run", str(tmp_path / "b" / "port.py"), "--against", str(bundle_path), "--reports", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "new / frozen old" in done.stdout


def test_the_freeze_command_writes_the_bundle_and_lists_its_content(tmp_path):
    path = tmp_path / "there" / "counter.equiv"
    ran = CliRunner().invoke(main, ["freeze", str(CASES / "counter.py"), "-o", str(path)])
    assert re.match(r"✓ .*: haiku of counter, \d+ leaves, \d+ probes, \d+ edge probes, [0-9.]+ MB\n", ran.stdout)
    assert ran.exit_code == 0
    assert restore_reference(decode_bundle(path.read_bytes(), "it")).observed.table.port == "haiku"
    many = CliRunner().invoke(main, ["freeze", str(CASES)])
    assert "cases, wanted one. Give a case file." in many.stderr
    assert many.exit_code == 2


def test_a_reference_that_cannot_be_built_is_not_frozen(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text((CASES / "counter.py").read_text().replace("def haiku():", "def haiku():\n    raise OSError('no')"))
    with pytest.raises(EquivError, match=r"haiku: building the model raised OSError: no\..*nothing can be compared"):
        freeze_reference(load_case(CaseFile("broken", path)))
