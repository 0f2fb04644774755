"""What a run begins with: the libraries' own fresh state, and as many probes as are needed."""

import helpers
import jax
import numpy as np
import pytest

from equiv.comparison.numeric.probe_set import make_probes
from equiv.programs.traced_port import trace_port


@pytest.mark.parametrize("backend", ["linen", "nnx"])  # Haiku draws some of it, which is replayed
def test_fresh_state_is_what_the_library_itself_initialises(backend: str):
    """State of zeros and ones is read from the program; the library, run, must give the same arrays."""
    traced = trace_port(helpers.workshop_of("batch_norm"), backend)
    own = traced.port.init(jax.random.key(0))
    state = [leaf for leaf in traced.table.leaves if leaf.spec.collection == "state"]
    assert set(traced.fresh) == {leaf.name for leaf in state}
    for leaf in state:
        expected, found = np.asarray(leaf.to_canonical(own[leaf.key])), traced.fresh[leaf.name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)


def test_proofs_are_checked_on_one_seed_the_rest_on_all():
    """A proof holds for every input; what is not proved has two seeds and large inputs."""
    workshop = helpers.workshop_of("batch_norm")
    table = workshop.built["haiku"].table
    assert [probe.name for probe in make_probes(workshop, table)] == ["0", "1", "wide", "cold"]
    assert [probe.name for probe in make_probes(workshop, table, proved=True)] == ["0", "cold"]
