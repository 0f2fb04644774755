"""What first users meet: each error has the fix in its words, not only the library's own message."""

import subprocess
import sys

import flax.linen as nn
import haiku as hk
import jax
import optax
import pytest
from flax import nnx

import equiv
from equiv.backends.known_errors import known_fix
from equiv.errors import EquivError
from equiv.infer.builders import locate_builder

BATCH = {"x": "f32[2,4]"}


class Module(hk.Module):
    def __call__(self, x):
        return hk.Linear(3)(x)


def forward(x):
    return hk.Linear(3)(x)


def untransformed():
    return Module()


def asking():
    return hk.transform(lambda x, is_big: hk.Linear(3)(x))


class Asking(nn.Module):
    @nn.compact
    def __call__(self, x, *, inference):
        return nn.Dense(3)(x)


class Port(nnx.Module):
    def __init__(self, rngs):
        self.l = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.l(x)


def uncalled():
    return Asking


def uncreated():
    model = nn.Dense(3)

    def train_step(state, x):
        grads = jax.grad(lambda params: (model.apply({"params": params}, x) ** 2).mean())(state.params)
        return state.apply_gradients(grads=grads)

    return model, train_step


def closed_over(rngs):
    model = Port(rngs)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, x):
        optimizer.update(model, nnx.grad(lambda model: (model(x) ** 2).mean())(model))

    return model, train_step


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (Module, r"Module is a module of haiku, .* def build\(\): return hk\.transform\(lambda x: Module\(\)\(x\)\)"),
        (
            forward,
            r"If it is the model's forward pass, give .*return hk\.transform\(lambda x: forward\(x\)\)",
        ),
        (
            untransformed,
            r"Make modules in a function that is transformed: return hk\.transform\(lambda x: Model",
        ),
    ],
)
def test_what_has_to_be_transformed_says_how(builder, message):
    with pytest.raises(EquivError, match=message):
        locate_builder(builder, "left")


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            asking,
            r"Say what is_big is, an input or a constant: --method '__call__\(\.\.\., is_big=\.\.\.\)'",
        ),
        (Asking, r"missing 1 required keyword-only .* Say what inference is.*'__call__\(\.\.\., inference=\.\.\.\)'"),
        (uncalled, r"wanted a flax\.linen\.Module\. Call the class: return Asking\(\.\.\.\)\. Return model"),
        (
            uncreated,
            r"parameter 'state'.* Return \(model, train_step, create\): create\(params\) makes the train",
        ),
        (
            closed_over,
            r"Cannot mutate .*make that an argument, and return \(model, train_step, create\)",
        ),
    ],
)
def test_a_builder_that_lacks_something_says_what(builder, message):
    with pytest.raises(EquivError, match=message):
        equiv.compare(builder, Port, batch=BATCH, steps=1)


def test_a_layer_without_its_size_is_no_matter_of_methods():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'features'") as caught:
        nn.Dense()  # pyright: ignore[reportCallIssue] - on purpose
    assert known_fix(caught.value) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.py:old", "json:dumps"), "equiv: nowhere.py: no such file."),
        (("json:loads", "json:dumps", "--input", "f32[2"), "equiv: batch entry 'x': cannot parse 'f32[2'."),
        (
            ("json:loads", "json:dumps", "--input", "f32[2]", "--method", "f(y)"),
            "equiv: method f takes 'y', which is no",
        ),
        (("json:loads", "json:dumps", "--input", "f32[2]", "--checks", "speed"), "there is no check 'speed'."),
        (("json:loads", "json:dumps", "--speed"), "No such option"),
    ],
)
def test_wrong_usage_is_said_before_jax_is_imported(arguments, message):
    code = (
        "import sys\nfrom equiv.frontends.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('jax' in sys.modules, 'numpy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (2, ["False", "False"])
    assert message in done.stderr
