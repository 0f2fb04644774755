"""A bundle that is broken, senseless or of another case is refused, with the reason."""

import hashlib
from dataclasses import replace

import msgspec
import pytest
from click.testing import CliRunner
from comparison.frozen.frozen_cases import NAMES, bundle, compare_with_frozen
from helpers import CASES, loaded

from equiv.comparison.frozen.bundle import FIRST_LINE, SCHEMA_VERSION, FrozenReference, encode_bundle
from equiv.comparison.frozen.sanity import refuse_senseless
from equiv.errors import CaseError, EquivError
from equiv.frontends.cli.main import main


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": {"x": "float32[9,9]"}}, r"counter: batch \{'x': 'float32\[9,9\]'\} in the case, .* in the bundle"),
        ({"steps": 7}, r"counter: steps 7 in the case, 5 in the bundle\. Freeze the reference again"),
    ],
    ids=["batch", "steps"],
)
def test_a_bundle_of_other_questions_is_refused(changed, message):
    other = replace(loaded("counter"), case=replace(loaded("counter").case, **changed))
    with pytest.raises(CaseError, match=message):
        compare_with_frozen(other, bundle("counter"))


def test_a_case_without_another_model_is_refused():
    case = loaded("counter").case
    alone = replace(case, models={"haiku": case.models["haiku"]})
    with pytest.raises(CaseError, match=r"the case has no model but haiku, which is frozen\. Add the port"):
        compare_with_frozen(replace(loaded("counter"), case=alone), bundle("counter"))


def sealed(content: bytes, version: int = SCHEMA_VERSION) -> bytes:
    """A bundle of this content, as if it had been written so."""
    return FIRST_LINE % version + hashlib.sha256(content).digest() + content


def broken(data: bytes) -> dict[str, bytes]:
    content = data[len(FIRST_LINE % SCHEMA_VERSION) + 32 :]
    # Raw fields: the keys of some maps are names of outputs, which are maps themselves.
    frozen = msgspec.msgpack.decode(content, type=dict[str, msgspec.Raw])
    shape = {**frozen, "fresh": {"a": {"dtype": "float32", "shape": [3], "data": b"12345678"}}}
    dtype = {**frozen, "fresh": {"a": {"dtype": "object", "shape": [1], "data": b"12345678"}}}
    changed = [
        {key: value for key, value in frozen.items() if key != "noise"},
        {**frozen, "steps": "five"},
        shape,
        dtype,
        {**frozen, "fresh": {"a": 3}},
    ]
    flipped = bytearray(data)
    flipped[-100] ^= 1
    return {
        "empty": b"",
        "no bundle": msgspec.msgpack.encode([1, 2]),
        "json": b'{"schema": 1}',
        "newer": sealed(content, 99),
        "cut off": data[: len(data) // 2],
        "only a line": FIRST_LINE % SCHEMA_VERSION,
        "a bit turned": bytes(flipped),
        **dict(zip(FIELDS, (sealed(msgspec.msgpack.encode(one)) for one in changed), strict=True)),
    }


FIELDS = ("a field lacks", "a field of another kind", "an array of another size", "objects", "an array that is none")

BROKEN = {
    **dict.fromkeys(("empty", "no bundle", "json"), "not a bundle of equiv freeze. "),
    "newer": f"bundle schema 99, this version reads {SCHEMA_VERSION}. ",
    **dict.fromkeys(("cut off", "only a line", "a bit turned"), "the bundle is cut off or was changed after it was "),
    **dict.fromkeys(FIELDS, "not a bundle of equiv freeze: "),
}


@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_bundle_is_one_message(what, tmp_path):
    path = tmp_path / "it.equiv"
    path.write_bytes(broken(encode_bundle(bundle("counter")))[what])
    ran = CliRunner().invoke(main, ["run", str(CASES / "counter.py"), "--against", str(path)])
    assert ran.stderr.startswith(f"equiv: {path}: {BROKEN[what]}")
    assert ran.stderr.endswith("Regenerate it with equiv freeze.\n")
    assert (ran.exit_code, ran.stdout) == (2, "")


def with_noise(frozen: FrozenReference, **changes) -> FrozenReference:
    """The bundle with other responses of one output."""
    output, known = next(iter(frozen.noise["0"].items()))
    return replace(frozen, noise={**frozen.noise, "0": {**frozen.noise["0"], output: replace(known, **changes)}})


def with_probe(frozen: FrozenReference, **changes) -> FrozenReference:
    return replace(frozen, probes=(replace(frozen.probes[0], **changes), *frozen.probes[1:]))


def senseless(frozen: FrozenReference) -> dict[str, tuple[FrozenReference, str]]:
    leaf, output = frozen.leaves[0], next(iter(frozen.depth))
    negative = replace(leaf, spec=replace(leaf.spec, shape=(-1,)))
    first = frozen.probes[0]
    turned = {**first.variables, leaf.name: first.variables[leaf.name].astype("float64")}
    part = frozen.parts[0]
    edge = frozen.edges[0]

    def with_edge(**changes) -> FrozenReference:
        return replace(frozen, edges=(replace(edge, **changes), *frozen.edges[1:]))

    return {
        "counters of other steps": (with_edge(late=(1, 2)), r"sets counters to \(1, 2\), in 5 train steps"),
        "draws beyond one": (with_edge(tails=(2.0,)), r"has draws of \(2.0,\), not from 0 to 1"),
        "two of one name": (with_edge(probe=replace(edge.probe, name="0")), "it has two probes 0"),
        "a leaf of no probe": (
            with_edge(probe=replace(edge.probe, variables={"none": first.variables[leaf.name]})),
            "has none, which probe 0 has not",
        ),
        "large noise": (with_noise(frozen, largest=1e300), "is said to move by 1e\\+300 on probe 0 for one ulp"),
        "large block": (with_noise(frozen, exponents=(1,), blocks=(1e30,)), "is said to move by 1e\\+30 on probe 0"),
        "noise nan": (with_noise(frozen, largest=float("nan")), "has responses on probe 0 that are no sizes"),
        "negative noise": (with_noise(frozen, largest=-1.0), "has responses on probe 0 that are no sizes"),
        "blocks without exponents": (with_noise(frozen, exponents=(), blocks=(0.0,)), "that are no sizes"),
        "negative shape": (replace(frozen, leaves=(negative, *frozen.leaves[1:])), r"has the shape \(-1,\)"),
        "negative depth": (replace(frozen, depth={**frozen.depth, output: -3}), "has -3 rounded operations in a row"),
        "no steps": (replace(frozen, steps=0), "0 train steps"),
        "no rate": (replace(frozen, default_rate=float("inf")), "the rate of the default train step is inf"),
        "no probes": (replace(frozen, probes=()), "it has no probes"),
        "another dtype": (with_probe(frozen, variables=turned), r"as float64\[.*its table as"),
        "fewer batches": (
            with_probe(frozen, batches={name: array[1:] for name, array in first.batches.items()}),
            "not one batch for each of 5 steps",
        ),
        "needs beyond": (
            replace(frozen, parts=(replace(part, needs=((99,), *part.needs[1:])), *frozen.parts[1:])),
            "depends on number 99",
        ),
        "needs lacking": (replace(frozen, parts=(replace(part, needs=()), *frozen.parts[1:])), "what 0 of them depend"),
    }


SENSELESS = (
    *("large noise", "large block", "noise nan", "negative noise", "blocks without exponents", "negative shape"),
    *("negative depth", "no steps", "no rate", "no probes", "another dtype", "fewer batches", "needs beyond"),
    *("needs lacking", "counters of other steps", "draws beyond one", "two of one name", "a leaf of no probe"),
)


@pytest.mark.parametrize("what", SENSELESS)
def test_a_senseless_bundle_is_refused(what):
    changed, message = senseless(bundle("counter"))[what]
    with pytest.raises(EquivError, match=f"^here: .*{message}.*Freeze the reference again with equiv freeze"):
        refuse_senseless(changed, "here")


def test_run_refuses_a_bundle_that_would_accept_anything(tmp_path):
    (tmp_path / "it").write_bytes(encode_bundle(with_noise(bundle("counter"), largest=1e300)))
    ran = CliRunner().invoke(main, ["run", str(CASES / "counter.py"), "--against", str(tmp_path / "it")])
    assert "is said to move by 1e+300" in ran.stderr
    assert ran.exit_code == 2


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_of_freeze_makes_sense(name):
    refuse_senseless(bundle(name), name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "none"), "equiv: none: cannot be read: No such file or directory. Give a file of equiv freeze."),
        (("--against", "it", "--prove-only"), "equiv: --against runs without --prove-only"),
    ],
    ids=["no file", "prove only"],
)
def test_what_cannot_be_asked_is_said(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(main, ["run", str(CASES / "counter.py"), *arguments])
    assert ran.stderr.startswith(message)
    assert ran.exit_code == 2


def test_a_bundle_finds_its_case_among_others(tmp_path):
    (tmp_path / "it").write_bytes(encode_bundle(replace(bundle("counter"), case="nobody")))
    ran = CliRunner().invoke(main, ["run", str(CASES), "--against", str(tmp_path / "it")])
    assert ran.stderr.startswith("equiv: none of ")
    assert ran.stderr.endswith("cases is 'nobody', of which the bundle was made. Give its file.\n")
