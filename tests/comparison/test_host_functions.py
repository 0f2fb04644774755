"""Ports that call host functions: proved only for one function, and tried on inputs of many sizes."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.case import Case
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.numeric.probe_set import FAR_INPUT_FACTOR, LARGE_INPUT_FACTOR, make_probes
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import linear
from equiv.programs import identity
from equiv.programs.content import calls_foreign_code


class Host:
    """Gives zero above a limit, which it does not show."""

    def __init__(self, limit):
        self.limit = limit

    def __repr__(self):
        return "Host()"

    def __call__(self, y):
        return np.where(np.asarray(y) > self.limit, 0, y).astype(y.dtype)


def called(host, y):
    return y + jax.pure_callback(host, jax.ShapeDtypeStruct(y.shape, y.dtype), jax.lax.stop_gradient(y))


def case_of(left, right):
    """Two models that apply these host functions to the same linear layer."""

    def linen():
        import flax.linen as nn

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return called(left, nn.Dense(3, name="l")(x))

        return Model()

    def haiku():
        import haiku as hk

        return hk.transform(lambda x: called(right, hk.Linear(3, name="l")(x)))

    models, layers = {"linen": linen, "haiku": haiku}, (linear("l", linen="l", haiku="l"),)
    given = {"batch": {"x": "float32[5,4]"}, "layers": layers, "checks": helpers.just("outputs")}
    return LoadedCase("host", "", Case(guide="g", models=models, **given))


def result_of(left, right):
    return run_case(case_of(left, right))


def grades(result):
    return {finding.grade for check in result.checks for finding in check.findings}


@pytest.mark.quick(1)
@pytest.mark.parametrize("limit", [50.0, 1000.0])
def test_host_functions_that_differ_far_away_are_refuted(limit):
    """One `repr`, and equal on inputs of ordinary size."""
    result = result_of(Host(limit), Host(1e9))
    assert result.verdicts == {"haiku": "different"}
    assert "proved" not in grades(result)


def test_one_host_function_in_both_ports_is_proved():
    host = Host(50.0)
    result = result_of(host, host)
    assert result.verdicts == {"haiku": "same"}
    assert grades(result) == {"exact", "proved"}


def test_a_host_function_is_not_proved_against_another_process(monkeypatch):
    """The code of the function may have changed since the reference was frozen."""
    case = case_of(*2 * [Host(50.0)])
    frozen = freeze_reference(case)
    here = run_case(case, options=RunOptions(against=frozen))
    monkeypatch.setattr(identity, "_PROCESS_TOKEN", "another process")
    there = run_case(case, options=RunOptions(against=frozen))
    assert (grades(here), grades(there)) == ({"exact", "proved"}, {"exact"})
    assert here.verdicts == there.verdicts == {"haiku": "same"}


def test_two_equal_host_functions_are_the_same_by_numbers():
    """What is not proved says where: the two calls are the first different equations."""
    result = result_of(Host(50.0), Host(50.0))
    assert result.verdicts == {"haiku": "same"}
    output = next(finding for check in result.checks if check.check == "outputs" for finding in check.findings)
    assert output.grade == "exact"
    assert [one.primitive for one in output.first_differences] == ["pure_callback", "pure_callback"]


def test_far_inputs_have_a_size_for_each_row():
    workshop = helpers.workshop_of("batch_norm")
    table = workshop.built["haiku"].table
    plain, near, far = (
        next(probe for probe in make_probes(workshop, table, far=far) if probe.name == name).batches
        for name, far in (("0", False), ("wide", False), ("wide", True))
    )
    name = next(name for name, array in plain.items() if array.dtype == "float32")
    np.testing.assert_array_equal(near[name], plain[name] * LARGE_INPUT_FACTOR)
    sizes = np.abs(far[name] / plain[name])
    np.testing.assert_allclose(sizes[:, 0], FAR_INPUT_FACTOR, rtol=1e-5)
    np.testing.assert_allclose(sizes[:, -1], LARGE_INPUT_FACTOR, rtol=1e-5)


def test_a_host_function_is_found_inside_of_loops():
    def looped(x):
        return jax.lax.scan(lambda carry, row: (carry + called(np.sign, row), None), x[0], x)[0]

    assert calls_foreign_code(jax.make_jaxpr(looped)(jnp.ones((3, 2))))
    assert not calls_foreign_code(jax.make_jaxpr(lambda x: jax.nn.gelu(x) @ x.T)(jnp.ones((3, 2))))
