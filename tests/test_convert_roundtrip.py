"""A really trained checkpoint goes Haiku, Linen, NNX, Haiku: nothing is lost, and training goes on as if it had not."""

import convert_helpers as h
import numpy as np
import pytest

from equiv.convert.readers import open_checkpoint
from equiv.convert.tree import words


def contents(file) -> dict[tuple[str, ...], np.ndarray]:
    checkpoint = open_checkpoint(file)
    found = {words(path): checkpoint.read(path) for path in checkpoint.leaves}
    checkpoint.close()
    return found


def same_bits(left, right) -> bool:
    return left.keys() == right.keys() and all(
        (left[path].dtype, left[path].shape, left[path].tobytes())
        == (right[path].dtype, right[path].shape, right[path].tobytes())
        for path in left
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Haiku to Linen to NNX to Haiku, each in another format."""
    folder = tmp_path_factory.mktemp("chain")
    first = h.save(folder / "haiku.msgpack", "haiku", h.trained(h.ADAM, "haiku"))
    h.take_over(first, h.ADAM, "linen", folder / "linen.orbax", format="orbax")
    h.take_over(folder / "linen.orbax", h.ADAM, "nnx", folder / "nnx.orbax", format="orbax", random="seed:5")
    h.take_over(folder / "nnx.orbax", h.ADAM, "haiku", folder / "back.npz", random="omit")
    return folder


def test_haiku_to_linen_to_nnx_to_haiku_is_bit_exact_state_and_optimizer_included(chain) -> None:
    """Haiku's counters and undebiased averages too, which neither Linen nor NNX has."""
    before, after = contents(chain / "haiku.msgpack"), contents(chain / "back.npz")
    assert len(before) == 25
    assert same_bits(before, after)
    assert before["opt_state", "0", "count"] == h.STEPS


def test_training_goes_on_with_the_same_losses_as_if_it_had_not_moved(chain) -> None:
    """With adam; dropout draws otherwise in each library, so that the case without it is compared."""
    stay, losses = h.train(h.ADAM, "haiku", h.trained(h.ADAM, "haiku"), range(h.STEPS, 2 * h.STEPS))
    back = h.restored_from_npz(chain / "back.npz", h.ADAM, "haiku")
    again, same = h.train(h.ADAM, "haiku", back, range(h.STEPS, 2 * h.STEPS))
    assert np.array_equal(losses, same)
    assert same_bits(h.leaves_of(stay), h.leaves_of(again))
