"""Complex parameters, inputs and outputs: compared by absolute value, in complex128 where no proof decides."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import just

import equiv

REAL, COMPLEX = {"x": "float32[3,4]"}, {"x": "complex64[3,4]"}


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def compared(left, right, batch, checks=None):
    """The verdict of two builders, and their checks by name."""
    (case,) = equiv.compare(left, right, batch=batch, checks=checks).cases
    (found,) = case.verdicts.values()
    return str(found), {one.check: one for one in case.checks}


def identity(z):
    return z


def linen(change=identity):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return change(nn.Dense(3, dtype=jnp.complex64, param_dtype=jnp.complex64, name="d")(x))

    return Model


def of_nnx(change=identity):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.d = nnx.Linear(4, 3, dtype=jnp.complex64, param_dtype=jnp.complex64, rngs=rngs)

        def __call__(self, x):
            return change(self.d(x))

    return Model


def test_complex_inputs_and_outputs_are_proved_with_their_gradients():
    verdict, checks = compared(linen(), of_nnx(), COMPLEX)
    assert verdict == "same"
    assert {name: checks[name].grade for name in ("outputs", "gradients", "train")} == dict.fromkeys(
        ("outputs", "gradients", "train"), "proved"
    )


@pytest.mark.quick(1)
@pytest.mark.parametrize("batch", [REAL, COMPLEX], ids=["real", "complex"])
def test_the_squared_absolute_value_may_be_written_otherwise(batch):
    written = linen(lambda z: jnp.abs(z) ** 2), of_nnx(lambda z: (z * z.conj()).real)
    verdict, checks = compared(*written, batch, just("outputs", "gradients"))
    assert (verdict, checks["outputs"].grade, checks["gradients"].grade) == ("same", "float64", "float64")


def swapped(z):
    return jax.lax.complex(z.imag, z.real)


CONJUGATE = "the complex conjugate of the reference"

WRONG = {
    "no conjugate": (lambda z: (z * z.conj()).real, lambda z: (z * z).real, ""),
    "a conjugate": (identity, jnp.conj, CONJUGATE),
    "swapped parts": (identity, swapped, "the reference with real and imaginary parts swapped"),
    "no imaginary part": (identity, lambda z: z.real + 0j, "the reference without its imaginary part"),
    "another sign of a small part": (lambda z: z.real + 1e-4j * z.imag, lambda z: z.real - 1e-4j * z.imag, CONJUGATE),
    "the other part": (jnp.real, jnp.imag, ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_function_of_complex_numbers_is_different(name):
    right, wrong, told = WRONG[name]
    verdict, checks = compared(linen(right), of_nnx(wrong), REAL, just("outputs"))
    assert verdict == "different"
    spreads = [one.spread.relation for one in checks["outputs"].findings if one.spread is not None]
    assert spreads == [told]


def filtered(transform):
    """A filter of frequencies."""

    def call(x):
        return transform(x) * hk.get_parameter("w", (4,), jnp.complex64, hk.initializers.RandomNormal())

    return lambda: hk.transform(call)


FREQUENCIES = np.exp(-2j * np.pi * np.outer(np.arange(4), np.arange(4)) / 4).astype("complex64")


@pytest.mark.parametrize(("matrix", "expected"), [(FREQUENCIES, "same"), (FREQUENCIES.conj(), "different")])
def test_a_fourier_transform_may_be_a_product_with_a_matrix(matrix, expected):
    assert compared(filtered(jnp.fft.fft), filtered(lambda x: x @ matrix), REAL, just("outputs"))[0] == expected


@pytest.mark.parametrize(("scale", "expected"), [(0.1 / 3, "same"), (0.1 / 3 * (1 + 1e-6), "different")])
def test_a_complex_constant_may_be_rounded_in_one_port(scale, expected):
    scaled = linen(lambda z: z * 0.1 / 3), of_nnx(lambda z: z * scale)
    verdict, checks = compared(*scaled, COMPLEX, just("outputs"))
    assert (verdict, checks["outputs"].grade) == (expected, "rounding" if expected == "same" else "refuted")
