"""Every function of jax.random takes all its values when its draws are replayed, in both precisions."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from named import trace_named

from equiv.errors import PortError
from equiv.programs.compiled import DRAW_SEED
from equiv.programs.draws import draw_bits
from equiv.programs.transform import make_draws_inputs

random = jax.random
SIZE = 6000

KEYS = {"PRNGKey", "key", "key_data", "key_dtype", "key_impl", "split", "fold_in", "clone", "wrap_key_data"}
"""Functions that make keys and draw nothing."""

REFUSED = {
    "beta": lambda key: random.beta(key, 2.0, 3.0, (4,)),
    "binomial": lambda key: random.binomial(key, 5.0, 0.5, (4,)),
    "chisquare": lambda key: random.chisquare(key, 3.0, shape=(4,)),
    "dirichlet": lambda key: random.dirichlet(key, jnp.ones(3), (4,)),
    "f": lambda key: random.f(key, 3.0, 4.0, (4,)),
    "gamma": lambda key: random.gamma(key, 2.0, (4,)),
    "generalized_normal": lambda key: random.generalized_normal(key, 2.0, (4,)),
    "ball": lambda key: random.ball(key, 2, 2, (4,)),
    "loggamma": lambda key: random.loggamma(key, 2.0, (4,)),
    "multinomial": lambda key: random.multinomial(key, 5, jnp.ones(3) / 3),
    "poisson": lambda key: random.poisson(key, 3.0, (4,)),
    "t": lambda key: random.t(key, 3.0, (4,)),
}
"""Functions that draw until a number is accepted: how many draws they make depends on what they draw."""

DISCRETE = {
    "bernoulli": (lambda key: random.bernoulli(key, 0.3, (SIZE,)), range(2)),
    "bits": (lambda key: random.bits(key, (SIZE,), "uint8"), range(256)),
    "categorical": (
        lambda key: random.categorical(key, jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4])), shape=(SIZE,)),
        range(4),
    ),
    "choice": (lambda key: random.choice(key, 4, (SIZE,)), range(4)),
    "geometric": (lambda key: jnp.minimum(random.geometric(key, 0.5, (SIZE,)), 6), range(1, 7)),
    "permutation": (lambda key: random.permutation(key, 64)[:3], range(64)),
    "rademacher": (lambda key: random.rademacher(key, (SIZE,)), (-1, 1)),
    "randint": (lambda key: random.randint(key, (SIZE,), 0, 4), range(4)),
}
"""A function with few values, and these."""

CONTINUOUS = {
    "cauchy": lambda key: random.cauchy(key, (SIZE,)),
    "double_sided_maxwell": lambda key: random.double_sided_maxwell(key, 0.0, 1.0, (SIZE,)),
    "exponential": lambda key: random.exponential(key, (SIZE,)),
    "gumbel": lambda key: random.gumbel(key, (SIZE,)),
    "laplace": lambda key: random.laplace(key, (SIZE,)),
    "logistic": lambda key: random.logistic(key, (SIZE,)),
    "lognormal": lambda key: random.lognormal(key, 1.0, (SIZE,)),
    "maxwell": lambda key: random.maxwell(key, (SIZE,)),
    "multivariate_normal": lambda key: random.multivariate_normal(key, jnp.zeros(1), jnp.eye(1), (SIZE,))[:, 0],
    "normal": lambda key: random.normal(key, (SIZE,)),
    "orthogonal": lambda key: random.orthogonal(key, 2, (SIZE,))[:, 0, 0],
    "pareto": lambda key: random.pareto(key, 2.0, (SIZE,)),
    "rayleigh": lambda key: random.rayleigh(key, 1.0, (SIZE,)),
    "triangular": lambda key: random.triangular(key, 0.0, 0.3, 1.0, (SIZE,)),
    "truncated_normal": lambda key: random.truncated_normal(key, -1.0, 2.0, (SIZE,)),
    "uniform": lambda key: random.uniform(key, (SIZE,)),
    "wald": lambda key: random.wald(key, 1.0, (SIZE,)),
    "weibull_min": lambda key: random.weibull_min(key, 1.0, 2.0, (SIZE,)),
}
"""A function of any real number, which its own draws are compared with."""

FORMS = {
    "randint-2**k": (lambda key: random.randint(key, (SIZE,), 0, 256), range(256)),
    "randint-2**10": (lambda key: random.randint(key, (8 * SIZE,), 0, 1024), range(1024)),
    "randint-of-10": (lambda key: random.randint(key, (SIZE,), 0, 10), range(10)),
    "randint-uint8": (lambda key: random.randint(key, (SIZE,), 0, 128, "uint8"), range(128)),
    "randint-below-2**15": (lambda key: random.randint(key, (SIZE,), 0, 2**15) >> 12, range(8)),
    "choice-with-p": (lambda key: random.choice(key, 4, (SIZE,), p=jnp.array([0.1, 0.2, 0.3, 0.4])), range(4)),
    "choice-once": (lambda key: random.choice(key, 64, (3,), replace=False), range(64)),
    "bits-lowest": (lambda key: random.bits(key, (SIZE,)) & 15, range(16)),
    "bits-16": (lambda key: random.bits(key, (SIZE,), "uint16") & 255, range(256)),
    "bernoulli-of-bfloat16": (lambda key: random.bernoulli(key, jnp.bfloat16(0.5), (SIZE,)), range(2)),
}
"""Other ways to call a function with few values."""


def replayed(function, float64, seeds):
    """What a function gives for the bits of each seed."""
    with jax.enable_x64(float64):
        program = trace_named(
            "p", lambda given: {"output": function(given["key"])}, {"key": jax.eval_shape(lambda: random.key(0))}
        )
        program = make_draws_inputs(program, float64)
        run = jax.jit(jaxpr_as_fun(program.jaxpr))
        given = [[draw_bits(draw, (seed, DRAW_SEED, n)) for n, draw in enumerate(program.draws)] for seed in seeds]
        return np.stack([np.asarray(run(*bits)[0]) for bits in given])


def test_every_public_function_is_in_one_of_the_tables():
    functions = {name for name, value in vars(random).items() if inspect.isroutine(value) and name[0] != "_"}
    tables = [set(REFUSED), set(DISCRETE), set(CONTINUOUS), KEYS]
    assert set().union(*tables) >= functions
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.quick(18)
@pytest.mark.parametrize("float64", [False, True], ids=["native", "float64"])
@pytest.mark.parametrize("name", {**DISCRETE, **FORMS})
def test_a_function_with_few_values_takes_them_all(name, float64):
    """As often as with its own keys, to six standard deviations."""
    function, values = {**DISCRETE, **FORMS}[name]
    drawn = replayed(function, float64, range(300 if name in ("permutation", "choice-once") else 2)).reshape(-1)
    own = jax.vmap(function)(random.split(random.key(0), max(2, drawn.size // function(random.key(0)).size))).reshape(
        -1
    )
    counts, expected = (np.array([np.sum(np.asarray(one) == value) for value in values]) for one in (drawn, own))
    assert set(np.unique(drawn)) == set(values)
    assert np.max(np.abs(counts / drawn.size - expected / own.size)) < 6 * np.sqrt(2 * expected.max()) / own.size


@pytest.mark.quick(18)
@pytest.mark.parametrize("float64", [False, True], ids=["native", "float64"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_function_of_real_numbers_has_its_distribution(name, float64):
    """The distance of both distribution functions (Kolmogorov, Smirnov), as chance gives it once in a million."""
    drawn = np.sort(replayed(CONTINUOUS[name], float64, range(2)).reshape(-1))
    own = np.sort(np.asarray(jax.vmap(CONTINUOUS[name])(random.split(random.key(1), 2))).reshape(-1))
    everything = np.concatenate([drawn, own])
    distance = np.max(np.abs(np.searchsorted(drawn, everything) - np.searchsorted(own, everything))) / own.size
    assert distance < np.sqrt(-np.log(1e-6 / 2) / own.size)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused(name):
    with pytest.raises(PortError, match="cannot be replayed"):
        replayed(REFUSED[name], False, [0])


def test_a_scalar_number_differs_from_probe_to_probe():
    """As in a roll by a random number: there is one draw in a call, and two probes."""
    values = replayed(lambda key: random.randint(key, (), 0, 4), False, range(40))
    assert set(values) == set(range(4))
