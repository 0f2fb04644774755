"""What a builder changes outside of its model is in force for its own port only, and is said."""

import os
import sys
from pathlib import Path

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from helpers import just

import equiv
from equiv.backends.patches import find_patches, isolate_import, patches_of, read_state, with_own_patches
from equiv.comparison.pipeline import run_cases
from equiv.core.case import Case
from equiv.core.case_files import CaseFile, LoadedCase, load_case
from equiv.errors import CaseError
from equiv.layers import linear

BATCH = {"x": "float32[4,8]"}
OUTPUTS = just("outputs")
ROWS = (linear("d", linen="d", nnx="d"),)


def honest():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jax.nn.gelu(nn.Dense(3, name="d")(x))

    return Model()


def port(activation):
    def build(rngs):
        class Model(nnx.Module):
            def __init__(self):
                self.d = nnx.Linear(8, 3, rngs=rngs)

            def __call__(self, x):
                return activation(self.d(x))

        return Model()

    return build


def relu_as_gelu(rngs):
    """A wrong port that makes its reference wrong too."""
    jax.nn.gelu = lambda x, approximate=True: jax.nn.relu(x)
    return port(jax.nn.relu)(rngs)


def half_dense(rngs):
    plain = nn.Dense.__call__
    nn.Dense.__call__ = lambda self, x: plain(self, x) * 0.5
    return port(lambda x: jax.nn.gelu(x * 0.5))(rngs)


def tanh_of_numpy(rngs):
    jnp.tanh = jnp.sin
    return port(jax.nn.gelu)(rngs)


def bfloat16_products(rngs):
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    return port(jax.nn.gelu)(rngs)


def other_environment(rngs):
    os.environ["MODEL_DEPTH"] = "3"
    return port(jax.nn.gelu)(rngs)


def changes(builder, layers=ROWS):
    run = equiv.compare(honest, builder, batch=BATCH, layers=layers, checks=OUTPUTS)
    return run.verdict, run.cases[0].scope.patched


@pytest.mark.parametrize("layers", [None, ROWS], ids=["inferred", "given"])
def test_a_port_cannot_change_its_reference(layers):
    gelu = jax.nn.gelu
    assert changes(relu_as_gelu, layers) == ("different", {"nnx": ("jax.nn.gelu",)})
    assert jax.nn.gelu is gelu


def test_a_replaced_method_of_a_layer_is_the_ports_own():
    assert changes(half_dense) == ("different", {"nnx": ("flax.linen.linear.Dense.__call__",)})


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        (tanh_of_numpy, "jax.numpy.tanh"),
        (bfloat16_products, "jax.config.jax_default_matmul_precision, None to 'bfloat16'"),
        (other_environment, "the environment variable MODEL_DEPTH"),
    ],
)
def test_what_is_changed_is_named_and_undone(builder, words):
    before = read_state()
    _, patched = changes(builder)
    assert patched == {"nnx": (words,)}
    assert find_patches(before) == ()


def test_an_honest_port_changes_nothing():
    assert changes(port(jax.nn.gelu)) == ("same", {})


def test_a_patching_reference_does_not_reach_its_candidate():
    """The other way round: the reference is the one that replaces."""
    run = equiv.compare(relu_as_gelu, honest, batch=BATCH, names=("nnx", "linen"), layers=ROWS, checks=OUTPUTS)
    assert run.verdict == "different"
    assert run.cases[0].scope.patched == {"nnx": ("jax.nn.gelu",)}


def test_a_module_that_patches_on_import_is_isolated(tmp_path: Path):
    """As in a port whose file replaces a function at its top; it is imported once, and built several times."""
    (tmp_path / "patching_port.py").write_text(
        "import jax\nfrom flax import nnx\njax.nn.gelu = lambda x, approximate=True: jax.nn.relu(x)\n\n\n"
        "class Model(nnx.Module):\n    def __init__(self, rngs):\n        self.d = nnx.Linear(8, 3, rngs=rngs)\n\n"
        "    def __call__(self, x):\n        return jax.nn.gelu(self.d(x))\n"
    )
    run = equiv.compare(honest, f"{tmp_path / 'patching_port.py'}:Model", batch=BATCH, checks=OUTPUTS)
    sys.modules.pop("patching_port")
    assert run.verdict == "different"
    assert run.cases[0].scope.patched == {"nnx": ("jax.nn.gelu",)}


CASE = '''
"""A case."""
import jax
from equiv import Case
from equiv.layers import linear
PATCH


def linen():
    import flax.linen as nn
    return nn.Sequential([nn.Dense(3), lambda x: jax.nn.gelu(x)])


def nnx(rngs):
    from flax import nnx
    return nnx.Sequential(nnx.Linear(8, 3, rngs=rngs), ACTIVATION)


CASE = Case("none", {"linen": linen, "nnx": nnx}, {"x": "float32[4,8]"},
            (linear("d", linen="layers_0", nnx="layers.0"),), steps=1, checks=CHECKS)
'''.replace("CHECKS", repr(OUTPUTS))


def test_a_case_file_that_patches_does_not_reach_the_next(tmp_path: Path):
    patch = "jax.nn.gelu = lambda x, approximate=True: jax.nn.relu(x)"
    texts = {"a": (patch, "jax.nn.relu"), "b": ("", "jax.nn.gelu"), "c": ("", "jax.nn.relu")}
    files = []
    for name, (top, activation) in texts.items():
        files.append(CaseFile(name, tmp_path / f"{name}.py"))
        files[-1].path.write_text(CASE.replace("PATCH", top).replace("ACTIVATION", activation))
    found = {case.name: (case.verdicts["nnx"], case.scope.patched) for case in run_cases(files)}
    both = dict.fromkeys(("linen", "nnx"), ("jax.nn.gelu",))
    assert found == {"a": ("same", both), "b": ("same", {}), "c": ("different", {})}


def test_a_later_build_has_what_the_first_changed():
    """A module is imported once: a second build changes nothing, and still has the replaced function."""
    seen = []

    def once():
        if not seen:
            np.sinh = np.cosh
        seen.append(np.sinh is np.cosh)

    for _ in range(2):
        with with_own_patches(once):
            once()
    assert seen == [True, True]
    assert np.sinh is not np.cosh
    assert [patch.text for patch in patches_of(once)] == ["numpy.sinh"]


def test_functions_are_kept_for_every_builder_of_a_case():
    case = Case("none", {"one": honest, "other": port(jax.nn.relu)}, {"x": "float32[4,8]"}, ())
    plain = hk.Linear.__call__

    def load():
        hk.Linear.__call__ = lambda self, x: x
        return LoadedCase("a", "", case)

    assert isolate_import(load).changes == ()
    assert hk.Linear.__call__ is plain
    words = ["haiku._src.basic.Linear.__call__"]
    assert [[patch.text for patch in patches_of(one)] for one in case.models.values()] == [words, words]


def test_a_case_files_options_hold_for_its_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EQUIV_TEST_OPTION", raising=False)
    options = (
        'import os\njax.config.update("jax_default_matmul_precision", "float32")\nos.environ["EQUIV_TEST_OPTION"] = "1"'
    )
    files = []
    for name, top in {"a": options, "b": ""}.items():
        files.append(CaseFile(name, tmp_path / f"{name}.py"))
        seen = (
            "def seen(x):\n"
            f"    with open({str(tmp_path / name)!r}, 'a') as file:\n"
            "        print(jax.config.jax_default_matmul_precision, file=file)\n"
            "    return jax.nn.gelu(x)\n"
        )
        files[-1].path.write_text(CASE.replace("PATCH", f"{top}\n{seen}").replace("ACTIVATION", "seen"))
    found = {case.name: (case.verdicts["nnx"], case.scope.patches) for case in run_cases(files)}
    words = "jax.config.jax_default_matmul_precision, None to 'float32', the environment variable EQUIV_TEST_OPTION"
    assert found["a"] == ("same", (f"the case file changes {words}: in force for this case only",))
    assert found["b"] == ("same", ())
    assert [set((tmp_path / name).read_text().split()) for name in "ab"] == [{"float32"}, {"None"}]
    assert jax.config.jax_default_matmul_precision is None
    assert "EQUIV_TEST_OPTION" not in os.environ


def test_a_case_file_that_fails_leaves_no_option(tmp_path: Path):
    (tmp_path / "a.py").write_text('import jax\njax.config.update("jax_numpy_rank_promotion", "raise")\n1 / 0\n')
    with pytest.raises(CaseError, match="importing it raised ZeroDivisionError"):
        isolate_import(lambda: load_case(CaseFile("a", tmp_path / "a.py")))
    assert jax.config.jax_numpy_rank_promotion == "allow"
