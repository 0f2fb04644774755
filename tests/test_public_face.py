"""What `import equiv` gives: every public name, and nothing loaded before it is asked for."""

import subprocess
import sys
from importlib import resources

import pytest

import equiv


def test_every_public_name_is_there():
    assert [name for name in equiv.__all__ if getattr(equiv, name, None) is None] == []
    assert set(equiv.__all__) <= set(dir(equiv))


def test_every_lazy_name_is_public():
    lazy = {name for names in equiv.PUBLIC_MODULES.values() for name in names}
    assert lazy | {"layers", "layouts"} == set(equiv.__all__)


def test_the_version_is_that_of_the_package():
    assert equiv.__version__.count(".") == 2


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'equiv' has no attribute 'Cases'"):
        equiv.Cases  # noqa: B018


def test_types_are_declared():
    """PEP 561: type checkers read the annotations of a package with this file."""
    assert resources.files(equiv).joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("Case, Depths, layers, zero_debias", {"jax", "flax", "haiku", "numpy", "pytest", "rich"}),
        ("RunResult, read_results", {"jax", "flax", "haiku", "pytest"}),
    ],
)
def test_a_name_loads_only_what_it_needs(names, absent):
    """A case file is read by `equiv list` without JAX, results by `equiv report`."""
    code = f"from equiv import {names}\nimport sys\nprint(*({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_page_without_its_extra_says_what_to_install(tmp_path):
    """vl-convert-python is an extra: without it every other format still works."""
    code = (
        "import sys\nsys.modules['vl_convert'] = None\n"
        "from equiv.frontends.cli.main import main\nmain(sys.argv[1:], prog_name='equiv')"
    )
    command = [sys.executable, "-c", code, "report", "reports/example.json", "-o"]
    done = subprocess.run([*command, tmp_path / "a.html"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "vl-convert-python, which is not installed here. Install it: pip install 'equiv[html]'" in done.stderr
    done = subprocess.run([*command, tmp_path / "a.md"], capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "a.md").exists()) == (0, True)
