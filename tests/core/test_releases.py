"""Where an old model lives equiv installs and freezes; it compares only on releases that this is tested on."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

import equiv
from equiv.backends.registry import load_backend
from equiv.core.releases import COMPARING, UNTESTED, check_releases, read_release
from equiv.errors import NotRun
from equiv.frontends.cli.main import main

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
FIX = r"Save the old model here with equiv freeze, and judge its port with equiv run --against"


@pytest.fixture
def old(monkeypatch):
    """An environment of an old reference, as far as its installed packages say."""
    own = metadata.version
    releases = {"jax": "0.4.35", "flax": "0.8.5"}
    monkeypatch.setattr(metadata, "version", lambda name: releases.get(name) or own(name))
    monkeypatch.delenv(UNTESTED, raising=False)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.4.35", (0, 4, 35)), ("0.10", (0, 10)), ("0.12.0.dev20260101", (0, 12, 0)), ("0.13.0rc1", (0, 13, 0))],
)
def test_a_release_is_read_as_numbers(text, numbers):
    assert read_release(text) == numbers


def test_bounds_are_those_of_pyproject():
    bounds = [f"{name}>={release}" for name, release in COMPARING.items()]
    assert PROJECT["project"]["optional-dependencies"]["compare"] == bounds
    assert set(bounds) <= set(PROJECT["dependency-groups"]["test"]), "the minimums are what the tests are run on"


def test_equiv_installs_where_an_old_model_lives():
    oldest = dict(re.fullmatch(r"(\w+)>=([\d.]+)", one).groups() for one in PROJECT["project"]["dependencies"])
    assert oldest["jax"] == "0.4.35"
    assert oldest["flax"] == "0.8"


def test_nothing_is_compared_on_an_old_jax(old):
    with pytest.raises(NotRun, match=rf"^jax 0\.4\.35 is installed, and ports are compared from jax 0\.10 on\. {FIX}"):
        check_releases()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "cases/mlp.py"),
        ("check", "nowhere:one", "nowhere:two", "--input", "float32[1]"),
        ("map", "nowhere:one", "nowhere:two", "--input", "float32[1]"),
        ("bench", "cases/mlp.py"),
        ("selfcheck", "cases/mlp.py"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_that_compares_is_refused_there(old, arguments):
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert re.match(rf"equiv: jax 0\.4\.35 is installed, .* {FIX}", done.output)


def test_every_function_that_compares_is_refused_there(old, tmp_path):
    calls = (
        lambda: equiv.run(),
        lambda: equiv.compare("a:b", "c:d", batch={"x": "float32[1]"}),
        lambda: equiv.infer_layers("a:b", "c:d", batch={"x": "float32[1]"}),
        lambda: equiv.convert(tmp_path / "old.npz", tmp_path / "new.npz", case="case.py", to="nnx"),
    )
    for call in calls:
        with pytest.raises(NotRun, match=FIX):
            call()


def test_untested_releases_are_used_where_that_is_asked_for(old, monkeypatch):
    monkeypatch.setenv(UNTESTED, "1")
    check_releases()


def test_an_old_nnx_is_refused_in_one_sentence(old):
    with pytest.raises(
        NotRun,
        match=r"^new: models of nnx are read from flax 0\.11 on, and flax 0\.8\.5 is installed, with which models "
        r"of haiku and linen can be\. Give the model in one of these, or install 'flax>=0\.11'\.$",
    ):
        load_backend("nnx", "new")
    assert load_backend("linen")
