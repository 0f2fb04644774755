"""What a user would write today: plain pytest and chex on outputs, gradients and five steps. For `bench_run.py`.

Cheaper than the real thing: the parameters go over by our mapping, and dropout is left out, since nothing makes the
libraries draw the same mask.
"""

from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

from equiv.backends.build import build_port, port_spec
from equiv.backends.leaf_table import to_canonical_variables, to_native_leaves
from equiv.core.case_files import CaseFile, load_case
from equiv.programs.probes import add_library_only_leaves, make_probe

SIX = ("dropout", "batch_norm", "auto_encoder", "rnn_scan", "scan_over_layers", "counter")
CASES = Path(__file__).parents[2] / "cases"
KEY = jax.random.key(0)


def outcomes(built, request, batches, variables):
    """Outputs of every method, gradients and five steps, each compiled by itself as a script does."""
    port, table = built.port, built.table
    native = {
        **port.init(KEY),
        **to_native_leaves(table, add_library_only_leaves(table, variables)),
    }  # eager initialisation, as in the guides
    first = {name: jnp.asarray(array[0]) for name, array in batches.items()}
    found = {}
    for method, call in request.methods.items():
        apply = jax.jit(lambda leaves, *inputs, method=method: port.apply(leaves, method, inputs, False, KEY)[0])
        found[method] = apply(native, *(first[name] for name in call.inputs))

    method, names = request.first_method

    def loss(params, rest):
        leaves = {key: {**params, **rest}[key] for key in port.leaves}
        return request.loss(port.apply(leaves, method, tuple(first[name] for name in names), False, KEY)[0], first)

    params = {key: leaf for key, leaf in native.items() if port.collections[key] == "params"}
    rest = {key: leaf for key, leaf in native.items() if key not in params}
    gradients = jax.jit(jax.grad(loss))(params, rest)
    named = to_canonical_variables(table, {**rest, **gradients})
    found["gradients"] = {name: named[name] for name in table.names("params")}
    step = jax.jit(port.step)
    carry = port.init_training(native, KEY)
    for index in range(5):
        carry, _ = step(carry, {name: jnp.asarray(array[index]) for name, array in batches.items()}, KEY)
    found["trained"] = jax.block_until_ready(jax.tree.leaves(carry))
    return found


@pytest.mark.parametrize("name", SIX)
def test_same(name):
    """All three libraries agree within a tolerance that somebody typed."""
    case = load_case(CaseFile(name, CASES / f"{name}.py")).case
    request, entries = port_spec(case)
    ports = {backend: build_port(case, backend, request) for backend in case.models}
    probe = make_probe("0", 1, ports["haiku"].table, entries, case.steps)
    give = partial(outcomes, request=request, batches=probe.batches, variables=probe.variables)
    results = {backend: give(built) for backend, built in ports.items()}
    for result in results.values():
        result.pop("trained")  # in each library's own order: a user compares it leaf by leaf, by hand
    for other in ("linen", "nnx"):
        chex.assert_trees_all_close(results["haiku"], results[other], rtol=1e-3, atol=1e-4)
