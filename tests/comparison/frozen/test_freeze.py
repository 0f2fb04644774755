"""A frozen reference judges ports as the living one does, without its library."""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import helpers
import msgspec
import numpy as np
import optax
import pytest
import trained_ports
from click.testing import CliRunner
from helpers import CASES, loaded

from equiv.comparison.frozen.against import restore_reference
from equiv.comparison.frozen.bundle import (
    FIRST_LINE,
    SCHEMA_VERSION,
    FrozenReference,
    decode_bundle,
    encode_bundle,
    environment_changes,
)
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.frozen.sanity import refuse_senseless
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import CaseFile, LoadedCase, load_case
from equiv.core.results import CaseResult
from equiv.core.results_json import read_results
from equiv.errors import CaseError, EquivError
from equiv.frontends.cli.main import main

NAMES = ("mlp", "custom_linear", "counter")


@cache
def bundle(name: str) -> FrozenReference:
    """The reference of a case, frozen and thawed once."""
    return decode_bundle(encode_bundle(freeze_reference(loaded(name))), name)


@cache
def living(name: str) -> CaseResult:
    return run_case(loaded(name))


def compare_with_frozen(case: LoadedCase, frozen: FrozenReference) -> CaseResult:
    return run_case(case, options=RunOptions(against=frozen))


def grades(result: CaseResult) -> dict[tuple[str, str], str]:
    return {(check.candidate, check.check): check.grade for check in result.checks}


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_every_check_the_living_references_grade(name):
    result = compare_with_frozen(loaded(name), bundle(name))
    assert grades(result) == grades(living(name))
    assert result.verdicts == living(name).verdicts
    assert result.reference == f"frozen {bundle(name).port}"


@pytest.mark.parametrize("name", NAMES)
def test_every_finding_is_the_living_ones(name):
    """Place by place: the same grade and the same rewrites."""

    def told(result):
        return {
            (c.check, c.candidate, f.place): (f.grade, f.note, f.rewrites) for c in result.checks for f in c.findings
        }

    ours, theirs = told(compare_with_frozen(loaded(name), bundle(name))), told(living(name))
    # What the guide prints of the frozen library is its own affair, and what its users run is not run again.
    own = (f"{bundle(name).port} prints", f"{bundle(name).port}: ")
    assert ours == {key: value for key, value in theirs.items() if not key[2].startswith(own)} | {
        key: value for key, value in ours.items() if key[2].startswith(own)
    }


def test_a_bundle_is_the_same_after_writing_and_reading():
    frozen = bundle("mlp")
    again = decode_bundle(encode_bundle(frozen), "again")
    assert encode_bundle(again) == encode_bundle(frozen)
    for one, other in zip(frozen.probes, again.probes, strict=True):
        for ours, theirs in (
            (one.native, other.native),
            (one.float64, other.float64),
            (one.variables, other.variables),
        ):
            assert ours.keys() == theirs.keys()
            assert all(ours[name].dtype == theirs[name].dtype for name in ours)
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_fault_in_a_port_is_found_at_its_place():
    case = helpers.patched("mlp", ("nnx.gelu(", "nnx.relu("))
    result = compare_with_frozen(replace(loaded("mlp"), case=case), bundle("mlp"))
    assert result.verdicts == {"linen": "same", "nnx": "different"}
    refuted = [f.place for c in result.checks for f in c.findings if f.grade == "refuted" and c.check == "outputs"]
    assert refuted[0] == "eval __call__: output"


def test_names_of_another_prover_prove_nothing_and_numbers_decide():
    result = compare_with_frozen(loaded("custom_linear"), replace(bundle("custom_linear"), prover="another"))
    assert set(result.verdicts.values()) == {"same"}
    of_numbers = {grade for (_, check), grade in grades(result).items() if check in ("outputs", "gradients", "train")}
    assert of_numbers == {"float64", "exact"}


def test_the_frozen_library_need_not_be_installed(tmp_path):
    """In a process that cannot import it, and from a case file that still holds its builder."""
    (tmp_path / "bundle").write_bytes(encode_bundle(bundle("custom_linear")))
    program = (
        "import sys\nsys.modules['haiku'] = None\nfrom equiv.frontends.cli.main import main\n"
        f"main(['run', {str(CASES / 'custom_linear.py')!r}, '--against', 'bundle', '--reports', '.'])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert ran.stdout.startswith("✓ Same: all 2 comparisons of 1 case.\n"), ran.stderr
    assert ran.returncode == 0
    (case,) = read_results(tmp_path / "results.json").cases
    assert case.reference == "frozen haiku"


def test_what_changed_in_the_environment_is_named():
    before = {**bundle("counter").environment, "jax": "0.1.0"}
    result = compare_with_frozen(loaded("counter"), replace(bundle("counter"), environment=before))
    (told,) = [trial.note for trial in result.trials if trial.kind == "environment"]
    assert told.startswith("jax: 0.1.0, now ")
    assert environment_changes({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ("b: 2, now unknown", "c: unknown, now 3")


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


def test_a_result_has_all_that_a_run_has():
    """Its file, builders, digest, errata and the places of every leaf: the report shows them as of a run."""
    case = replace(loaded("mlp"), path="cases/mlp.py")
    against, run = compare_with_frozen(case, bundle("mlp")), run_case(case)
    for name in ("name", "lesson", "guide", "path", "sources", "source_digest", "deviations", "unmapped_leaves"):
        assert getattr(against, name) == getattr(run, name), name
    assert against.sources
    for theirs, ours in zip(against.leaves, run.leaves, strict=True):
        assert theirs.places.pop("frozen haiku") == ours.places.pop("haiku")
        assert (theirs.leaf, theirs.places) == (ours.leaf, ours.places)


def test_a_missing_leaf_is_refuted_and_blocks_the_rest():
    """A leaf that the bundle has and the port has not."""
    frozen = bundle("custom_linear")
    extra = replace(frozen.leaves[0], name="more/kernel")
    result = compare_with_frozen(loaded("custom_linear"), replace(frozen, leaves=(*frozen.leaves, extra)))
    assert {grade for (_, check), grade in grades(result).items() if check == "structure"} == {"refuted"}
    assert {grade for (_, check), grade in grades(result).items() if check != "structure"} == {"blocked"}


ALONE = '''"""One model of the two, the other is not there."""

from equiv import Case
from equiv.layers import linear


def {name}():
    {imports}
    {model}


CASE = Case(
    guide="none",
    models={{"{name}": {name}}},
    batch={{"x": "float32[4,7]"}},
    layers=(linear("dense", old="dense", new="{scope}"),),
)
'''
OLD = {
    "name": "old",
    "scope": "dense",
    "imports": "import haiku as hk",
    "model": "return hk.transform(lambda x: hk.Linear(3, name='dense')(x))",
}
NEW = {
    "name": "new",
    "scope": "layers_0",
    "imports": "import flax.linen as nn",
    "model": "return nn.Sequential([nn.Dense(3), {after}])",
}


@pytest.mark.parametrize(("after", "code"), [("lambda x: x", 0), ("nn.relu", 1)])
def test_each_model_may_be_alone_in_its_case(tmp_path, after, code):
    """The old one is frozen, and the new one compared with it where the old library cannot be imported."""
    for values, path in ((OLD, tmp_path / "a" / "port.py"), (NEW, tmp_path / "b" / "port.py")):
        path.parent.mkdir()
        path.write_text(ALONE.format(**{**values, "model": values["model"].format(after=after)}))
    bundle_path = tmp_path / "port.equiv"
    ran = CliRunner().invoke(main, ["freeze", str(tmp_path / "a" / "port.py"), "-o", str(bundle_path)])
    assert (ran.exit_code, ran.stderr) == (0, "")
    script = (
        "import sys\nsys.modules['haiku'] = None\n"
        "from equiv.frontends.cli.main import main\nmain(sys.argv[1:], prog_name='equiv')"
    )
    arguments = ["run", str(tmp_path / "b" / "port.py"), "--against", str(bundle_path), "--reports", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "port, new / frozen old" in done.stdout


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
    changed, message = senseless(bundle("mlp"))[what]
    with pytest.raises(EquivError, match=f"^here: .*{message}.*Freeze the reference again with equiv freeze"):
        refuse_senseless(changed, "here")


def test_run_refuses_a_bundle_that_would_accept_anything(tmp_path):
    (tmp_path / "it").write_bytes(encode_bundle(with_noise(bundle("mlp"), largest=1e300)))
    ran = CliRunner().invoke(main, ["run", str(CASES / "mlp.py"), "--against", str(tmp_path / "it")])
    assert "is said to move by 1e+300" in ran.stderr
    assert ran.exit_code == 2


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


def test_the_freeze_command_writes_the_bundle_and_lists_its_content(tmp_path):
    path = tmp_path / "there" / "counter.equiv"
    ran = CliRunner().invoke(main, ["freeze", str(CASES / "counter.py"), "-o", str(path)])
    assert re.match(r"✓ .*: haiku of counter, \d+ leaves, \d+ probes, \d+ edge probes, [0-9.]+ MB\n", ran.stdout)
    assert ran.exit_code == 0
    assert restore_reference(decode_bundle(path.read_bytes(), "it")).observed.table.port == "haiku"
    many = CliRunner().invoke(main, ["freeze", str(CASES)])
    assert "cases, wanted one. Give a case file." in many.stderr
    assert many.exit_code == 2


def test_a_reference_that_cannot_be_built_is_not_frozen(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text((CASES / "counter.py").read_text().replace("def haiku():", "def haiku():\n    raise OSError('no')"))
    with pytest.raises(EquivError, match=r"haiku: building the model raised OSError: no\..*nothing can be compared"):
        freeze_reference(load_case(CaseFile("broken", path)))


ADAM, NONE = optax.adam(0.1), None


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "places"),
    [
        (ADAM, ADAM, "same", 7),
        (NONE, NONE, "same", 3),
        (ADAM, NONE, "inconclusive", 1),
        (NONE, ADAM, "inconclusive", 4),
    ],
    ids=["own", "default", "only-frozen", "only-new"],
)
def test_a_one_sided_step_is_not_compared_with_a_bundle(ours, theirs, verdict, places):
    """The frozen step cannot be replaced by the default one; that of the other port can."""
    case = trained_ports.loaded_case(linen=trained_ports.linen_port(ours), nnx=trained_ports.nnx_port(theirs))
    frozen = decode_bundle(encode_bundle(freeze_reference(case)), "trained")
    found = compare_with_frozen(case, frozen)
    assert found.verdicts == {"nnx": verdict}
    (train,) = [check for check in found.checks if check.check == "train"]
    assert len(train.findings) == places
    if verdict == "inconclusive":
        having = "linen" if ours else "nnx"
        assert train.summary.startswith(f"training is not compared: only {having} has a train step of its own.")


def test_a_lowered_default_rate_is_that_of_the_bundle():
    models = {"linen": trained_ports.linen_port(None), "nnx": trained_ports.nnx_port(None)}
    case = replace(trained_ports.case_of(**models), loss=lambda outputs, _: 1e4 * (outputs**2).mean())
    frozen = freeze_reference(LoadedCase("trained", "", case))
    assert frozen.default_rate < 0.1
    found = compare_with_frozen(LoadedCase("trained", "", case), frozen)
    assert found.verdicts == {"nnx": "same"}
    (remark,) = [check.remarks[0] for check in found.checks if check.check == "train"]
    assert f"optax.sgd({frozen.default_rate:g})" in remark


ACTIVATION = """
from equiv.case import Case
from equiv.layers import linear


def build(change):
    import flax.linen as nn
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return change(nn.Dense(3, name="d")(x), jnp)

    return Model()


def old():
    return build(lambda y, jnp: {"cap": jnp.where(y > 60, 0.0, y), "top": jnp.argmax(y, -1), "one": y * 1.0})


def new():
    return build(lambda y, jnp: {"cap": CAP, "top": TOP, "one": y * 1.0})


CASE = Case(
    guide="none",
    models={"old": old, "new": new},
    batch={"x": "float32[5,4]"},
    layers=(linear("d", old="d", new="d"),),
    loss=lambda outputs, batch: (outputs["one"] ** 2).mean() + (outputs["cap"] ** 2).mean(),
    steps=2,
)
"""


def activation(cap: str, top: str) -> LoadedCase:
    source = ACTIVATION.replace("CAP", cap).replace("TOP", top)
    return LoadedCase("activation", "", helpers.case_from(source, "activation"))


@cache
def frozen_activation() -> FrozenReference:
    case = activation("y", "jnp.argmax(y, -1)")
    return decode_bundle(encode_bundle(freeze_reference(case)), "activation")


def test_a_frozen_reference_has_edge_probes_of_its_own():
    """One output differs above 60 only, one at ties only; neither is in reach of an ordinary probe."""
    result = compare_with_frozen(activation("y", "2 - jnp.argmax(y[:, ::-1], -1)"), frozen_activation())
    (outputs,) = (check for check in result.checks if check.check == "outputs")
    found = {one.output.path: one.probe for one in outputs.findings if one.grade == "refuted"}
    assert found == {"cap": "around 60", "top": "zero inputs"}


def test_what_only_the_candidate_asks_is_said():
    """The frozen reference cannot be run where only the candidate has a threshold."""
    cap = "jnp.where(y > 60, 0.0, jnp.where(y < -1e4, 1.0, y))"
    result = compare_with_frozen(activation(cap, "jnp.argmax(y, -1)"), frozen_activation())
    assert result.verdicts == {"new": "same"}
    places = [one.text for one in result.scope.unexercised if one.kind == "unaimed"]
    assert len(places) == 1
    assert places[0].startswith("no probe of the frozen reference is made for its threshold < -10000")
    assert {"around 60", "zero inputs", "small inputs"} <= set(result.scope.edges)


def test_a_reference_that_refuses_edges_is_frozen_without_them(monkeypatch):
    def refuse(*_):
        raise EquivError("old: only zeros.")

    monkeypatch.setattr("equiv.comparison.frozen.edges.run_reference_edges", refuse)
    case = activation("y", "jnp.argmax(y, -1)")
    frozen = freeze_reference(case)
    assert (frozen.edges, frozen.edges_refused) == ((), "old: only zeros.")
    scope = compare_with_frozen(case, frozen).scope
    assert "nothing was tried beyond ordinary values: old: only zeros" in scope.notes
