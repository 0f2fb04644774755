"""A checkpoint of the old model of a library becomes one of the new model of the same library."""

from collections.abc import Callable

import convert_helpers as h
import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
import trained_ports

from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.source.expected_leaves import build_library_model, saved_form
from equiv.conversion.verify import ConversionMismatch
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.layers import linear


class Renamed(nn.Module):
    """The new model."""

    between: Callable = nn.relu

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(self.between(nn.Dense(5, name="hidden")(x)))


def old():
    return nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(3)])


def take_over(new, folder):
    """Train the old model with adam for two steps, and convert what is saved of it."""
    case = Case(
        guide="none",
        models={"old": old, "new": new},
        batch={"x": "float32[4,7]"},
        layers=(linear("hidden", old="layers_0", new="hidden"), linear("out", old="layers_2", new="out")),
        optimizer=lambda: optax.adam(0.1),
    )
    port = build_library_model(case, "old").port
    carry, step = h.begun(port, 1), h.quick(port.step)
    for index in range(2):
        carry, _ = step(carry, {"x": np.full((4, 7), index + 1, "f4")}, jax.random.key(0))
    file = h.save_npz(folder / "old.npz", saved_form(carry))
    request = ConversionRequest(file, LoadedCase("case", "", case), "new", folder / "new.npz", verify=True)
    return carry, convert_checkpoint(request)


def test_weights_and_moments_go_to_their_new_names(tmp_path):
    carry, manifest = take_over(Renamed, tmp_path)
    assert (manifest.source.backend, manifest.target.backend) == ("old", "new")
    assert manifest.verified.startswith("same")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/hidden/kernel"], carry["params"]["layers_0"]["kernel"])
        assert np.array_equal(found["opt_state/0/mu/out/bias"], carry["opt_state"][0].mu["layers_2"]["bias"])


@pytest.mark.slow
def test_a_new_model_that_differs_is_refused(tmp_path):
    """Another activation: the leaves fit, the outputs do not."""
    with pytest.raises(ConversionMismatch, match="output"):
        take_over(lambda: Renamed(nn.gelu), tmp_path)
    assert not (tmp_path / "new.npz").exists()


def test_a_train_step_of_one_model_keeps_no_weights_back(tmp_path):
    """Its training is not compared, which is no fault of the checkpoint; all that the weights give is."""
    case = trained_ports.case_of(linen=trained_ports.linen_port(optax.adam(0.1)), nnx=trained_ports.nnx_port(None))
    port = build_library_model(case, "linen").port
    leaves = port.init(jax.random.key(0))
    file = h.save_npz(tmp_path / "old.npz", {"params": {"fc": {key.path[3:]: leaf for key, leaf in leaves.items()}}})
    request = ConversionRequest(file, LoadedCase("case", "", case), "nnx", tmp_path / "new.npz", verify=True)
    assert convert_checkpoint(request).verified.startswith("same: outputs exact, gradients exact")
