"""Constants that a port rounds to float32 are no difference; a constant that is wrong by more than its last digit is.

Every output of a model is one way to write one function: compiled once, judged each by itself. The first three of them
(jax sorts their names) are trained.
"""

import re
from dataclasses import replace

import pytest
from helpers import case_from, just

from equiv.comparison import stages
from equiv.comparison.frozen.bundle import decode_bundle, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.numeric import fold, held_outputs
from equiv.comparison.numeric.constant_readings import read_constants
from equiv.comparison.numeric.held_outputs import HeldOutputs
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import advance
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.output_name import STEP, ProgramName
from equiv.core.results import CheckResult
from equiv.programs import compiled

SOURCE = """
import math

import numpy as np

from equiv.case import Case
from equiv.layers import linear

F = np.float32
PLACES, WAVES = np.arange(7), 10000.0 ** (-np.arange(4) / 4)
ANGLES = np.outer(PLACES, WAVES).astype(F)
COS, SIN = np.cos(ANGLES), np.sin(ANGLES)
CHANNELS = np.arange(8)


def rotate(jnp, y, cos, sin):
    return jnp.concatenate([y[:, :4] * cos - y[:, 4:] * sin, y[:, 4:] * cos + y[:, :4] * sin], -1)


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    EAGER = jnp.sin(jnp.arange(8.0))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Dense(8, name="l")(x)
            return {OURS}

    return Model()


def nnx(rngs):
    from flax import nnx
    import jax
    import jax.numpy as jnp

    class Model(nnx.Module):
        def __init__(self):
            self.l = nnx.Linear(5, 8, rngs=rngs)

        def __call__(self, x):
            y = self.l(x)
            angles = jnp.arange(7.0)[:, None] * 10000.0 ** (-jnp.arange(4.0) / 4)
            channels = jnp.arange(8.0)
            return {THEIRS}

    return Model()


CASE = Case(
    guide="none: one number, rounded and not",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[7,5]"},
    layers=(linear("l", linen="l", nnx="l"),),
    loss=lambda out, batch: sum((one**2).mean() for one in list(out.values())[:3]),
    steps=2,
)
"""

Ways = dict[str, tuple[str, str]]
"""Name of an output to how each port computes it."""


def case_of(ways: Ways) -> Case:
    """The case whose outputs are these."""
    ours, theirs = (", ".join(f'"{name}": {pair[side]}' for name, pair in ways.items()) for side in (0, 1))
    return case_from(SOURCE.replace("OURS", ours).replace("THEIRS", theirs), "constants")


def judged(ways: Ways, checks: tuple[str, ...] | None = None) -> tuple[CheckResult, ...]:
    """The checks of the case whose outputs are these."""
    opened = check_structure(open_case(replace(case_of(ways), checks=checks)))
    started = advance(opened, (trace_ports, prove_ports, start_compiling, run_reference))
    return check_candidates(started).checks


GELU = "0.5 * y * (1 + jnp.tanh(ROOT * (y + CUBE * y**3)))"

NUMBERS: Ways = {
    "divided by a root": ("y / np.sqrt(8).astype('float32')", "y * 8**-0.5"),
    "a root in two halves": ("y * F(12**-0.25) * F(12**-0.25)", "y / math.sqrt(12)"),
    "gelu with more digits": ("jax.nn.gelu(y)", GELU.replace("ROOT", "0.7978845608").replace("CUBE", "0.044715")),
    "an error function": ("jax.lax.erf(y * F(2**-0.5))", "jax.lax.erf(y / 2**0.5)"),
    "a third": ("y * F(1 / 3)", "y / 3"),
    "a logarithm": ("jax.nn.softplus(y) - F(np.log(2))", "jax.nn.softplus(y) - math.log(2)"),
    "hard swish": ("y * jnp.clip(y + 3, 0, 6) * F(1 / 6)", "y * jnp.clip(y + 3, 0, 6) / 6"),
    "a temperature": ("jnp.tanh(y * F(1 / 0.07))", "jnp.tanh(y / 0.07)"),
}

SCALES: Ways = {
    "a number as written": ("jax.nn.sigmoid(F(1.702) * y) * y", "jax.nn.sigmoid(1.702 * y) * y"),
    "pixels": ("y * F(1 / 255)", "y / 255"),
    "an embedding's scale": ("y * F(math.sqrt(24))", "y * 24**0.5"),
    "a norm by its root": (
        "y / jnp.linalg.norm(y, axis=-1, keepdims=True) * F(8**0.5)",
        "y / jnp.sqrt((y * y).mean(-1, keepdims=True))",
    ),
    "a soft cap": ("30 * jnp.tanh(y * F(1 / 30))", "30 * jnp.tanh(y / 30)"),
    "selu": (
        "F(1.0507009873554805) * jnp.where(y > 0, y, F(1.6732632423543772) * jnp.expm1(y))",
        "jnp.where(y > 0, 1.05070098736 * y, 1.05070098736 * 1.67326324235 * jnp.expm1(y))",
    ),
    "a number in a loop": (
        "jax.lax.fori_loop(0, 3, lambda _, z: z * F(0.7**0.5) + y, y)",
        "jax.lax.fori_loop(0, 3, lambda _, z: z * 0.7**0.5 + y, y)",
    ),
    "a number in a branch": (
        "jax.lax.cond(y.sum() > 1e6, lambda z: z, lambda z: z * F(0.3**0.5), y)",
        "jax.lax.cond(y.sum() > 1e6, lambda z: z, lambda z: z * 0.3**0.5, y)",
    ),
}

TABLES: Ways = {
    "rotary": ("rotate(jnp, y, COS, SIN)", "rotate(jnp, y, jnp.cos(angles), jnp.sin(angles))"),
    "positions": (
        "y + np.concatenate([SIN, COS], -1)",
        "y + jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)",
    ),
    "positions in another layout": (
        "y * np.stack([SIN, COS], -1).reshape(7, 8)",
        "jnp.stack([y[:, 0::2] * jnp.sin(angles), y[:, 1::2] * jnp.cos(angles)], -1).reshape(7, 8)",
    ),
    "a longer table": (
        "y[:, :4] * np.cos(np.outer(np.arange(20), WAVES)).astype(F)[:7]",
        "y[:, :4] * jnp.cos(angles)",
    ),
    "a longer table that is looked up": (
        "y[:, :4] * jnp.asarray(np.sin(np.outer(np.arange(40), WAVES)).astype(F))[jnp.arange(7)]",
        "y[:, :4] * jnp.sin(angles)",
    ),
    "made before the call": ("y + EAGER", "y + jnp.sin(channels)"),
    "a window": ("y * np.hanning(8).astype(F)", "y * (0.5 - 0.5 * jnp.cos(2 * jnp.pi * channels / 7))"),
    "slopes": ("y * (2.0 ** (-8 * (CHANNELS + 1) / 12)).astype(F)", "y * 2.0 ** (-8 * (channels + 1) / 12)"),
    "a cosine transform": (
        "y @ np.cos(np.pi / 8 * np.outer(CHANNELS + 0.5, CHANNELS)).astype(F)",
        "y @ jnp.cos(jnp.pi / 8 * (channels + 0.5)[:, None] * channels)",
    ),
}

MORE_TABLES: Ways = {
    "means of channels": (
        "(y[:, :3] - np.array([0.485, 0.456, 0.406], F)) / np.array([0.229, 0.224, 0.225], F)",
        "(y[:, :3] - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])",
    ),
    "means of channels as numbers": (
        "y[:, :3] - np.array([0.4914, 0.4822, 0.4465], F)",
        "jnp.stack([y[:, 0] - 0.4914, y[:, 1] - 0.4822, y[:, 2] - 0.4465], -1)",
    ),
    "a kernel times a number": (
        "y[:, :3] * (np.array([0.25, 0.5, 0.25]) * 3**-0.5).astype(F)",
        "y[:, :3] * np.array([0.25, 0.5, 0.25], F) * 3**-0.5",
    ),
    "digits typed": (
        "y[:, :4] * jnp.array([0.84147098, 0.90929743, 0.14112001, -0.7568025], F)",
        "y[:, :4] * jnp.sin(jnp.arange(1.0, 5.0))",
    ),
    "wavelengths": (
        "jnp.sin(y[:, :4] * WAVES.astype(F))",
        "jnp.sin(y[:, :4] / 10000.0 ** (jnp.arange(4.0) / 4))",
    ),
    "a table in a loop": (
        "jax.lax.scan(lambda z, t: (z * t, z), y[0], (0.9 ** np.arange(1, 8) / 7).astype(F))[1]",
        "jax.lax.scan(lambda z, t: (z * t, z), y[0], 0.9 ** jnp.arange(1.0, 8.0) / 7)[1]",
    ),
    "two rounded tables": ("y * np.exp(CHANNELS.astype(F) / 7)", "y * np.exp(CHANNELS / 7).astype(F)"),
}

RIGHT = {"numbers": NUMBERS, "scales": SCALES, "tables": TABLES | MORE_TABLES}


@pytest.mark.quick(1)
@pytest.mark.parametrize("group", RIGHT)
def test_constants_that_one_port_rounds_are_no_difference(group: str) -> None:
    """In outputs, gradients and training; what was needed is named as a remark, once."""
    checks = judged(RIGHT[group])
    assert not [one.place for check in checks for one in check.findings if one.grade not in EQUAL_GRADES]
    remarks = [remark for check in checks for remark in check.remarks]
    assert sum("constants that a port rounds to float32" in remark for remark in remarks) == 1


def test_constants_of_a_candidate_are_read_beside_a_frozen_reference() -> None:
    case = LoadedCase("constants", "", case_of({"a root": ("y * 8**-0.5", "y / F(8**0.5)")}))
    frozen = decode_bundle(encode_bundle(freeze_reference(case)), "constants")
    result = run_case(case, options=RunOptions(against=frozen))
    assert result.verdicts == {"nnx": "same"}
    assert "nnx's 2.82842708" in next(remark for check in result.checks for remark in check.remarks)


HALF: Ways = {
    "a scale in bfloat16": ("HALF(y) * jnp.bfloat16(12**-0.5)", "HALF(y) * 12**-0.5"),
    "a scale that one port has in float32": (
        "(HALF(y) * jnp.bfloat16(20**-0.5)).astype('float32')",
        "HALF(y * F(20**-0.5)).astype('float32')",
    ),
    "a table in bfloat16": (
        "HALF(y) * np.sin(CHANNELS).astype(jnp.bfloat16)",
        "HALF(y) * jnp.sin(channels).astype(jnp.bfloat16)",
    ),
    "a mask in bfloat16": (
        "HALF(y) + np.where(CHANNELS > 3, -0.7, 0.3).astype(jnp.bfloat16)",
        "HALF(y) + jnp.where(channels > 3, -0.7, 0.3).astype(jnp.bfloat16)",
    ),
}
HALF_FAULTS: Ways = {
    "a scale three last digits off": ("HALF(y) * jnp.bfloat16(12**-0.5 * 1.02)", "HALF(y) * 12**-0.5"),
    "a scale that is the next number": ("HALF(y) * jnp.bfloat16(0.2890625)", "HALF(y) * jnp.bfloat16(0.291015625)"),
    "a table with two numbers exchanged": (
        "HALF(y) * np.sin(CHANNELS)[::-1].astype(jnp.bfloat16)",
        "HALF(y) * jnp.sin(channels).astype(jnp.bfloat16)",
    ),
    "another function": (
        "HALF(y) * np.sin(CHANNELS / 1.02).astype(jnp.bfloat16)",
        "HALF(y) * jnp.sin(channels).astype(jnp.bfloat16)",
    ),
}


def in_half(ways: Ways) -> Ways:
    return {
        name: (ours.replace("HALF(", "jnp.bfloat16("), theirs.replace("HALF(", "jnp.bfloat16("))
        for name, (ours, theirs) in ways.items()
    }


@pytest.mark.slow
def test_constants_that_one_port_rounds_to_bfloat16_are_no_difference() -> None:
    checks = judged(in_half(HALF))
    assert not [one.place for check in checks for one in check.findings if one.grade not in EQUAL_GRADES]
    (remark,) = (remark for check in checks for remark in check.remarks if "constants that a port rounds" in remark)
    assert "rounds to bfloat16" in remark


@pytest.mark.slow
def test_wrong_constants_in_bfloat16_stay_different() -> None:
    outputs = next(check for check in judged(in_half(HALF_FAULTS)) if check.check == "outputs")
    found = {one.output.path.strip("/") for one in outputs.findings if one.output and one.grade == "refuted"}
    assert found == set(HALF_FAULTS)


@pytest.mark.slow
def test_two_tables_that_are_rounded_otherwise_are_named() -> None:
    """Cosines of float64 angles and of float32 ones, both made by numpy: nothing tells either from another formula."""
    cosines = ("y[:, :4] * np.cos(100 * np.outer(PLACES, WAVES)).astype(F)", "y[:, :4] * np.cos(F(100) * ANGLES)")
    checks = judged({"rotary": cosines})
    assert "refuted" in {check.grade for check in checks}
    (remark,) = (remark for check in checks for remark in check.remarks if "are not equal: " in remark)
    assert re.match(
        r"linen's table of 28 numbers \(constants.py \(patched\):\d+\) and nnx's \(constants.py \(patched\):\d+\) are "
        r"not equal: \d+ numbers differ, most \[\d, \d\]: -?0\.\d+ \(linen\), -?0\.\d+ \(nnx\), [\d.]+ last digits of "
        r"float32\. Where they are meant to be one table, compute both in one way: by the same function, in one dtype",
        remark,
    )


FAULTS: Ways = {
    "a root off by a millionth": ("y / F(8**0.5 * (1 + 1e-6))", "y * 8**-0.5"),
    "a root three last digits off": ("y / (F(12**0.5) + 3 * np.spacing(F(12**0.5)))", "y / math.sqrt(12)"),
    "a mistake as small as a digit": ("y / F(20**0.5) + 1e-8 * y[::-1]", "y * 20**-0.5"),
    "another epsilon": (
        "y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5) * F(0.2**0.5)",
        "y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-6) * 0.2**0.5",
    ),
    "a cube with fewer digits": ("jax.nn.gelu(y)", GELU.replace("ROOT", "0.7978845608").replace("CUBE", "0.0447")),
    "a cube off by a millionth": (
        "jax.nn.gelu(2 * y)",
        GELU.replace("y", "(2 * y)").replace("ROOT", "0.7978845608").replace("CUBE", "0.04471504"),
    ),
    "a root with fewer digits": (
        "jax.nn.gelu(3 * y)",
        GELU.replace("y", "(3 * y)").replace("ROOT", "0.797").replace("CUBE", "0.044715"),
    ),
    "another momentum": ("y * F(0.99) + y[::-1] * F(0.01)", "y * 0.999 + y[::-1] * 0.001"),
    "wavelengths off by a millionth": (
        "y[:, :4] * np.cos(ANGLES * (1 + 1e-6)).astype(F)",
        "y[:, :4] * jnp.cos(angles)",
    ),
    "one position off": ("rotate(jnp, y, COS, np.roll(SIN, 1, 0))", "rotate(jnp, y, jnp.cos(angles), jnp.sin(angles))"),
    "one position off in a longer table": (
        "y[:, :4] * jnp.asarray(np.sin(np.outer(np.arange(40), WAVES)).astype(F))[1 + jnp.arange(7)]",
        "y[:, :4] * jnp.sin(angles)",
    ),
    "a longer table off by a millionth": (
        "y[:, :4] * jnp.asarray(np.sin(1.000001 * np.outer(np.arange(40), WAVES)).astype(F))[jnp.arange(7)]",
        "y[:, :4] * jnp.sin(angles)",
    ),
    "one number of a table": (
        "y[:, :4] * np.where(CHANNELS[:4] == 1, COS * (1 + 1e-6), COS).astype(F)",
        "y[:, :4] * jnp.cos(angles)",
    ),
    "a table off by a millionth": ("y[:, :4] * (SIN * (1 + 1e-6)).astype(F)", "y[:, :4] * jnp.sin(angles)"),
    "a cosine for a sine": (
        "y + np.concatenate([COS, SIN], -1)",
        "y + jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)",
    ),
    "two numbers exchanged": (
        "y[:, :3] - np.array([0.485, 0.406, 0.456], F)",
        "y[:, :3] - jnp.array([0.485, 0.456, 0.406])",
    ),
}


def test_wrong_constants_stay_different_whatever_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that differ so much that no reading would be tried."""
    read: list[str] = []

    def read_always(comparison, results):
        return frozenset({ProgramName("call", "__call__"), STEP, ProgramName("gradient", "__call__")})

    def read_and_record(*arguments):
        found = read_constants(*arguments)
        read.append("" if found is None else found.note)
        return found

    monkeypatch.setattr(stages, "doubted_constants", read_always)
    monkeypatch.setattr(stages, "read_constants", read_and_record)
    outputs = next(check for check in judged(FAULTS, just("outputs")) if check.check == "outputs")
    assert {one.output.path.strip("/") for one in outputs.findings if one.output and one.grade == "refuted"} == set(
        FAULTS
    )
    assert "constants that a port rounds to float32" in read[0]


def test_a_reading_is_tried_for_small_differences_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another epsilon costs no second run of the ports."""
    monkeypatch.setattr(stages, "read_constants", None)
    ways = {name: FAULTS[name] for name in ("a root with fewer digits", "another momentum", "two numbers exchanged")}
    assert "refuted" in {check.grade for check in judged(ways)}


@pytest.mark.parametrize("factor", ["8**-0.5", "8**-0.5 * (1 + 5e-7)"], ids=["the same", "another"])
def test_large_training_is_read_in_parts(factor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched is what is shown; of no run all outputs."""

    def found() -> list[tuple[str, str, str]]:
        checks = judged({"root": ("y / np.sqrt(8).astype('float32')", f"y * {factor}")})
        return [(one.check, one.grade, one.findings[0].note if one.findings else "") for one in checks]

    whole, as_a_whole = found(), list[bool]()
    compute = HeldOutputs._compute

    def compute_and_look(self, names):
        as_a_whole.append(frozenset(names) == self.large.keys())
        return compute(self, names)

    monkeypatch.setattr(HeldOutputs, "_compute", compute_and_look)
    for module, name, value in (
        (compiled, "LARGE_TRAINING", 0),
        (held_outputs, "LARGE_OUTPUT", 8),
        (fold, "FETCHED", 0),
    ):
        monkeypatch.setattr(module, name, value)
    assert found() == whole
    assert not any(as_a_whole)
    is_same = factor == "8**-0.5"
    assert ("read to more digits" in str(whole)) == is_same
    assert ({grade for _, grade, _ in whole} <= set(EQUAL_GRADES)) == is_same
