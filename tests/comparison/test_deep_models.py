"""GPT and ResNet of one block: every output, gradient and step of three libraries is proved.

`python tests/proof_share.py` has 12 blocks, ViT, and every pair.
"""

import pytest
from deep_models import DEEP_CASES
from proof_share import prove_ports_of, shares


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["gpt", "resnet_group_norm"])
def test_a_block_is_proved_as_a_whole(name):
    state, _ = prove_ports_of(DEEP_CASES[name](1), ("haiku", "linen", "nnx"))
    found = shares(state)
    assert set(found) == {"outputs", "gradients", "train"}
    assert all(proved == number for proved, number in found.values()), found


@pytest.mark.slow
def test_slices_are_followed_through_four_blocks_of_a_vit():
    """Nested slices are more than the operations between: a limit on them must not end where a reshape is seen."""
    state, _ = prove_ports_of(DEEP_CASES["vit"](4), ("haiku", "linen"))
    assert all(proved == number for proved, number in shares(state).values())
