"""`equiv check --invariant`: each model compared with itself, without a case file."""

import pytest
from click.testing import CliRunner

from equiv.case import BatchInvariance, Padding
from equiv.frontends.cli.inferred_case import BuilderArguments
from equiv.frontends.cli.main import main

PADDED = """
import numpy as np
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp


def mix(x, mask, scores, applied):
    logits = jnp.einsum("bqd,bkd->bqk", scores, x)
    allowed = mask[:, None, :] > 0 if applied else jnp.ones_like(logits, bool)
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(jnp.where(allowed, logits, -1e30)), x)


class Old(nn.Module):
    applied: bool = True

    @nn.compact
    def __call__(self, x, mask):
        return mix(x, mask, nn.Dense(4, name="scores")(x), self.applied)


class New(nnx.Module):
    applied = True

    def __init__(self, rngs):
        self.scores = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, mask):
        return mix(x, mask, self.scores(x), self.applied)


class Forgotten(New):
    applied = False


def forgotten():
    return Old(applied=False)


def batch():
    return {"x": np.zeros((3, 5, 4), "float32"), "mask": (np.arange(5) < np.array([[2], [5], [4]])).astype("int32")}
"""


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A file of models that are given a mask, and of ones that do not apply it."""
    file = tmp_path_factory.mktemp("padded") / "padded_models.py"
    file.write_text(PADDED)
    return file


def run(*arguments):
    """Exit code and both outputs of `equiv check`."""
    result = CliRunner().invoke(main, ["check", *arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def check_padded(padded, left, right, *arguments):
    """`equiv check` of two of these models, by their outputs and by what holds for each."""
    asked = ("--batch", f"{padded}:batch", "--checks", "outputs,invariance", *arguments)
    return run(f"{padded}:{left}", f"{padded}:{right}", *asked)


def test_invariances_are_compared_on_request(padded):
    """Two models that ignore their mask are the same model, and each is wrong."""
    both = ("--invariant", "batch", "--invariant", "padding:mask")
    code, out, _ = check_padded(padded, "Old", "New", *both)
    assert (code, out.startswith("✓ Same")) == (0, True), out
    code, out, _ = check_padded(padded, "forgotten", "Forgotten", *both)
    assert code != 0
    assert "without the padding of mask" in out


def test_invariances_are_read_as_a_case_has_them():
    texts = ("batch", "padding:mask", "padding: hidden = 0")
    case = BuilderArguments("m:a", "m:b", batch="m:c", keep=("mask",), invariances=texts).read_case()
    assert case.invariances == (BatchInvariance(), Padding("mask"), Padding("hidden", valid=False))
    assert case.keep == ("mask", "hidden")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--invariant", "rows"), "--invariant 'rows': there is no invariance 'rows'. Write batch, padding:mask"),
        (("--invariant", "batch:x"), "--invariant 'batch:x': batch takes no input, and 'x' is given."),
        (("--invariant", "padding"), "--invariant 'padding': padding names no mask."),
        (("--invariant", "padding:m=2"), "the valid positions of a mask are 0 or 1, and '2' is given."),
        (
            ("--invariant", "padding:msk"),
            "padding names the mask 'msk', of which there are no values; the batch has x,",
        ),
        (("--checks", "outputs", "--invariant", "batch"), "'batch': --checks outputs leaves it out. Add invariance"),
    ],
)
def test_an_unusable_invariance_is_named(padded, arguments, message):
    code, out, err = check_padded(padded, "Old", "New", *arguments)
    assert (code, out) == (2, "")
    assert message in err.replace("\n", " ")


def test_padding_needs_values_of_its_mask(padded):
    given = ("--input", "x=f32[3,5,4]", "--input", "mask=f32[3,5]", "--invariant", "padding:mask")
    code, _, err = run(f"{padded}:Old", f"{padded}:New", *given)
    assert code == 2
    assert "--invariant 'padding:mask': values of --input are random" in err
