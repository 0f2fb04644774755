"""`equiv locate` and `equiv minimise`: what they print and write, and that nothing is written where nothing can be."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from repro_models import SMALL_FAULTS, small_source
from stepped_models import BEHIND, plant

from equiv.errors import EquivError
from equiv.frontends.cli.main import main

TINY = '''
"""A norm and a linear layer."""

from equiv.case import Case
from equiv.layers import layer_norm, linear

def haiku():
    import haiku as hk

    def forward(x):
        x = hk.LayerNorm(-1, True, True, eps=1e-5, name="norm")(x)
        return hk.Linear(3, name="head")(x)

    return hk.without_apply_rng(hk.transform(forward))

def linen():
    from flax import linen as nn

    return nn.Sequential([nn.LayerNorm(epsilon=EPSILON), nn.Dense(3)])

CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[2,4]"},
    layers=(layer_norm("norm", haiku="norm", linen="layers_0"), linear("head", haiku="head", linen="layers_1")),
    checks=("outputs",),
)
'''


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny case with an epsilon, in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"tiny{abs(hash(request.node.nodeid)) % 10**8}.py"  # a module is imported once
    path.write_text(TINY.replace("EPSILON", getattr(request, "param", "1e-3")))
    return path


def test_locate_prints_every_place_of_a_case(case: Path):
    result = invoke("locate", case)
    assert result.exit_code == 1
    assert re.search(
        r"linen / haiku: different\n  call __call__: 1 output refuted, worst .*error / budget", result.stdout
    )
    assert "1. first differs in `norm`: haiku add with 1e-05" in result.stdout
    line = 1 + next(n for n, text in enumerate(TINY.splitlines()) if "eps=1e-5" in text)
    assert f"at {case.name}:{line}" in result.stdout
    assert "tried: with epsilon 1e-05 in place of 0.001 in `norm`: same" in result.stdout


def test_locate_prints_json_with_the_same_places(case: Path):
    result = invoke("locate", case, "--json")
    assert result.exit_code == 1
    (candidate,) = json.loads(result.stdout)["candidates"]
    assert (candidate["name"], candidate["verdict"]) == ("linen", "different")
    (program,) = candidate["programs"]
    (place,) = program["divergences"]
    assert place["causes"][0] == {"left": 0.0, "text": "epsilon 1e-05 in place of 0.001", "within": True}
    assert [site["port"] for site in place["sites"]] == ["haiku", "linen"]


def test_an_optimizer_is_minimised_to_one_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each leaf is updated by itself: one of them is enough, and no value makes all of them right."""
    monkeypatch.chdir(tmp_path)
    Path("stepped.py").write_text(plant(BEHIND["b2"]))
    result = invoke("minimise", "stepped.py")
    assert result.exit_code == 1
    assert "linen differs from haiku in step: 3 operations for 3" in result.stdout
    assert "b2 0.999 in place of 0.9" in Path("repro.py").read_text()


def test_minimise_ends_when_its_time_is_over(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a sentence that says so, and no file."""
    monkeypatch.setattr("equiv.comparison.located.MOST_SECONDS", -1.0)

    def refuse(*_: object) -> None:
        raise EquivError("no two values were found.", fix="Call equiv locate for the place.")

    monkeypatch.setattr("equiv.comparison.explain.reproduction.reproduce._reproduce", refuse)
    result = invoke("minimise", case, "--out", tmp_path / "made")
    assert result.exit_code == 2
    assert not (tmp_path / "made").exists()


def test_minimise_writes_a_file_that_runs_alone(case: Path, tmp_path: Path):
    result = invoke("minimise", case, "--out", tmp_path / "made")
    assert result.exit_code == 1
    assert "linen differs from haiku in call __call__: 1 operation for 1" in result.stdout
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["repro.npz", "repro.py"]
    script = tmp_path / "made" / "repro.py"
    assert "with epsilon 1e-05 in place of 0.001" in script.read_text()
    done = subprocess.run([sys.executable, "-I", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (1, "different", "")


@pytest.mark.parametrize("case", ["1e-5"], indirect=True)
def test_nothing_is_written_where_both_are_the_same(case: Path, tmp_path: Path):
    result = invoke("minimise", case, "--out", tmp_path / "made")
    assert result.exit_code == 0
    assert "linen same: there is no difference to reproduce, and nothing was written" in result.stdout
    assert not (tmp_path / "made").exists()
    result = invoke("locate", case)
    assert (result.exit_code, "nothing to locate" in result.stdout) == (0, True)


def test_no_file_is_half_written(case: Path, tmp_path: Path):
    (tmp_path / "made" / "repro.py").mkdir(parents=True)
    result = invoke("minimise", case, "--out", tmp_path / "made")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["repro.py"]


def test_what_cannot_be_cut_down_is_said_in_words(case: Path, tmp_path: Path):
    case.write_text(case.read_text().replace("nn.Dense(3)", "nn.Dense(5)"))
    result = invoke("minimise", case, "--out", tmp_path / "made")
    assert result.exit_code == 2
    assert "no program of it can be cut down" in result.stderr
    assert not (tmp_path / "made").exists()


def test_two_models_are_located_without_a_case(case: Path):
    result = invoke("locate", f"{case}:haiku", f"{case}:linen", "--input", "float32[2,4]")
    assert result.exit_code == 1
    assert "with epsilon 1e-05 in place of 0.001" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["locate", "a.py", "b.py", "c.py"], "3 arguments"),
        (["locate", "a.py", "--input", "f32[2]"], "are in the case"),
        (["minimise", "nowhere.py"], "nowhere.py"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: list[str], message: str):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_case_that_cannot_be_compared_says_why(case: Path):
    case.write_text(case.read_text().replace('linen="layers_1"', 'linen="layers_7"'))
    result = invoke("minimise", case)
    assert result.exit_code == 2
    assert "row head (linear) says 'layers_7'" in result.stderr


def test_a_candidate_that_is_not_there_is_named(case: Path):
    result = invoke("minimise", case, "--candidate", "nnx")
    assert result.exit_code == 2
    assert "has no candidate 'nnx'; it has linen" in result.stderr


@pytest.mark.slow
def test_every_divergence_of_two_faults_is_printed(tmp_path: Path):
    text = small_source(SMALL_FAULTS[0])
    model, _, rest = text.partition("def nnx(rngs)")
    path = tmp_path / "two_faults_located.py"
    path.write_text(f"{model}def nnx(rngs){rest.replace('return x * 1.5', 'return x * 1.25')}")
    result = invoke("locate", path)
    assert "with all of these together: same" in result.stdout
