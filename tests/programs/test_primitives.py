"""The table of primitives and the installed jax: neither has a primitive that the other lacks without a reason."""

import gc

import pytest
from jax.extend.core import Primitive, primitives

from equiv.programs.primitives import (
    COMMUTATIVE,
    ELEMENTWISE,
    EXACT,
    KINDS,
    NUMPY_FUNCTIONS,
    OTHER_RELEASES,
)

CLASSIFIED = frozenset().union(*KINDS.values())

NOT_CLASSIFIED = {
    "between devices: an opaque symbol, whose axes a program binds": """
        all_gather all_gather_done all_gather_invariant all_gather_reduced all_gather_reduced_start all_gather_start
        all_to_all all_to_all_done all_to_all_start axis_index pbroadcast pbroadcast_done pbroadcast_start pmax pmin
        ppermute ppermute_done ppermute_start precv preduced psend psum psum_done psum_invariant psum_invariant_start
        psum_start ragged_all_to_all reduce_scatter reduce_scatter_done reduce_scatter_start reduced_vary_cast_p
        shard_map unreduced_psum unreduced_psum_start unreduced_reduce_scatter unreduced_reduce_scatter_start
        vary_unreduced_cast_p global_array_to_host_local_array host_local_array_to_global_array
    """,
    "a mutable array, box or log, with an effect": """
        accum_grad_in_ref addupdate box_get box_set empty_ref free_ref freeze get log_extend log_read new_box new_log
        new_ref pin run_state swap unpin create_linear tie
    """,
    "a call into Python or another compiler: nothing is known of its results": """
        call_exported core_map cudnn_fusion debug_callback debug_print ffi_call inspect_sharding io_callback
        pure_callback call_hi_primitive call_hi_primitive_linearized
    """,
    "a fused kernel of one vendor": """
        dot_product_attention_bwd dot_product_attention_bwd_wrapper dot_product_attention_fp8_bwd
        dot_product_attention_fp8_bwd_wrapper dot_product_attention_fp8_fwd dot_product_attention_fp8_fwd_wrapper
        dot_product_attention_fwd dot_product_attention_fwd_wrapper scaled_matmul scaled_matmul_wrapper
    """,
    "ordering, checks, placement or symbolic sizes: no arithmetic": """
        after_all check create_token dce_sink device_put dim_as_value dimension_size from_edtype platform_index
        shape_assertion stage to_edtype unreachable with_memory_space_constraint
    """,
    "has a jaxpr with a meaning of its own": """
        composite custom_jvp_call_jaxpr custom_lin custom_linear_solve custom_partitioning custom_vmap_call linear_call
        reduce remat_opt
    """,
    "depends on the device what it returns": "approx_top_k",
}
"""Reason to the primitives of jax that the table leaves out: each is an opaque symbol to the prover."""


def installed():
    """Names of all primitives that the imported modules of jax define."""
    assert vars(primitives)
    return {one.name for one in gc.get_objects() if isinstance(one, Primitive) and type(one).__module__[:3] == "jax"}


def test_every_primitive_of_jax_is_classified_or_has_a_reason():
    known = {name for names in NOT_CLASSIFIED.values() for name in names.split()}
    assert sorted(installed() - CLASSIFIED - known) == []


def test_every_primitive_of_the_table_is_in_jax():
    """What another supported release has is said, with the release."""
    assert sorted(CLASSIFIED - installed() - set(OTHER_RELEASES)) == []


def test_a_new_primitive_is_noticed():
    """The tests above can fail."""
    new = Primitive("a_primitive_of_tomorrow")
    assert new.name in installed() - CLASSIFIED


@pytest.mark.parametrize("kind", KINDS)
def test_a_primitive_is_of_one_kind(kind):
    others = frozenset().union(*(names for other, names in KINDS.items() if other != kind))
    assert not KINDS[kind] & others


@pytest.mark.parametrize("names", [COMMUTATIVE, EXACT, frozenset(NUMPY_FUNCTIONS), frozenset(OTHER_RELEASES)])
def test_a_property_is_one_of_classified_primitives(names):
    assert sorted(names - CLASSIFIED) == []


def test_what_numpy_computes_for_us_is_elementwise():
    assert frozenset(NUMPY_FUNCTIONS) <= ELEMENTWISE
