"""`equiv verify` and `equiv run --certificates`: what is said, exit codes, files that are no certificates."""

import json
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import CASES
from small_ports import small

from equiv.certificates.checker.check import digest
from equiv.certificates.verify import FalseCertificate, read_certificate, verify_file
from equiv.errors import EquivError
from equiv.frontends.cli.main import main


@cache
def counter_file(folder):
    """The certificate of the counter in NNX, as a run writes it, and what the run said."""
    arguments = ["run", str(CASES / "counter.py"), "--prove-only", "--reports", str(folder)]
    done = CliRunner().invoke(main, [*arguments, "--certificates", str(folder / "proofs")])
    return folder / "proofs" / "counter-nnx.json", done


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return counter_file(tmp_path_factory.mktemp("certificates"))


def verify(*arguments):
    done = CliRunner().invoke(main, ["verify", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


def test_a_run_writes_certificates_and_says_the_share(written):
    path, done = written
    assert f"certificate: {path}: 21 of 21 proofs" in done.stderr
    assert path.is_file()


def test_a_verified_file_says_what_is_claimed_checked_and_trusted(written):
    code, text = verify(written[0])
    assert code == 0
    first, *rest = text.splitlines()
    assert first == (
        "✓ counter: nnx computes what haiku computes, in 10 of 10 outputs of 4 programs: "
        "begin, call __call__, gradient __call__, step"
    )
    for line in (
        "for every input of these shapes and dtypes: batch/x float32",
        "checked: ",
        "trusted: the checker (equiv/certificates/checker)",
        "not traced again",
    ):
        assert any(line in one for one in rest), line


def test_a_case_is_traced_again_and_compared(written, tmp_path):
    code, text = verify(written[0], CASES / "counter.py")
    assert (code, text.splitlines()[-1]) == (0, f"  traced again from {CASES / 'counter.py'}: the same programs")
    other = tmp_path / "counter.py"
    other.write_text((CASES / "counter.py").read_text().replace("* 0.5", "* 0.25").replace("+ 1", "+ 2"))
    code, text = verify(written[0], other)
    assert code == 1
    assert "the proofs follow, but not of" in text


def test_a_false_certificate_is_refused_with_exit_code_one(tmp_path):
    data = small().copy()
    data["proofs"][0]["steps"][1][3][1][0][0] += 1
    path = tmp_path / "false.json"
    path.write_text(json.dumps(data))
    code, text = verify(path)
    assert code == 1
    assert text.startswith(f"✗ {path}: refused: ")
    assert len(text.splitlines()) == 1


DEEP = '{"schema": 1, "about": ' + "[" * 100_000
BROKEN = {
    "empty": "",
    "no_json": "{",
    "not_a_number": '{"schema": NaN}',
    "another_file": '{"verdict": "same"}',
    "another_version": '{"schema": 7}',
    "a_list": "[1, 2]",
    "deeper_than_any": DEEP,
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_certificate_is_one_sentence(text, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(text)
    code, said = verify(path)
    assert (code, len(said.splitlines())) == (2, 1)
    assert "Traceback" not in said


def sections(data):
    """A certificate without each of its sections, and with each of them as something else."""
    for key in data:
        yield {name: value for name, value in data.items() if name != key}
        for other in (None, [], {}, 3, "text", [[[[]]]], [None], {"a": 1}):
            yield {**data, key: other}


def test_sections_of_another_kind_are_never_a_traceback(tmp_path):
    path = tmp_path / "broken.json"
    for data in sections(small().data):
        path.write_text(json.dumps(data))
        code, said = verify(path)
        assert "Traceback" not in said
        assert code == 0 or len(said.splitlines()) == 1


def test_a_certificate_of_nothing_is_refused(tmp_path):
    path = tmp_path / "nothing.json"
    path.write_text(json.dumps({**small().copy(), "programs": [], "proofs": [], "training": []}))
    with pytest.raises(FalseCertificate, match=r"it claims of no output that it is equal"):
        verify_file(path)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(EquivError, match=r"cannot be read: No such file"):
        read_certificate(tmp_path / "none.json")


def test_a_changed_program_needs_its_own_digest(tmp_path):
    data = small().copy()
    program = data["programs"][0]
    program["outputs"].reverse()
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(data))
    with pytest.raises(FalseCertificate, match=r"another digest"):
        verify_file(path)
    program["digest"] = digest(program)
    path.write_text(json.dumps(data))
    with pytest.raises(FalseCertificate, match=r"refused"):
        verify_file(path)


def test_certificates_of_a_frozen_reference_are_refused(tmp_path):
    arguments = ["run", str(CASES / "counter.py"), "--against", str(tmp_path / "a.equiv"), "--certificates", "there"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--against runs without" in done.stderr
    assert not Path("there").exists()


def test_what_is_not_claimed_has_its_exit_code(written, tmp_path):
    data = json.loads(written[0].read_text())
    proof = next(one for one in data["proofs"] if one["programs"][0][0] == "gradient")
    proof["pairs"].pop()
    path = tmp_path / "partial.json"
    path.write_text(json.dumps({**data, "training": [], "left_out": [["loss", "the checker has no rule"]]}))
    code, text = verify(path)
    assert code == 3
    first, second, third, *_ = text.splitlines()
    assert first.startswith("! counter: nnx computes what haiku computes, in 9 of 10 outputs of 4 programs")
    assert second.startswith("  nothing is claimed of ")
    assert second.endswith(" of gradient __call__")
    assert third == "  proved, but not certified: loss: the checker has no rule"


def test_outputs_of_the_case_that_are_not_claimed_are_named(written, tmp_path):
    """Whole programs can be left out, too, which only the case shows."""
    data = json.loads(written[0].read_text())
    data["proofs"] = [one for one in data["proofs"] if one["programs"][0][0] != "gradient"]
    data["programs"] = [one for one in data["programs"] if one["name"][0] != "gradient"]
    path = tmp_path / "partial.json"
    path.write_text(json.dumps({**data, "training": []}))
    assert verify(path)[0] == 0
    code, text = verify(path, CASES / "counter.py")
    assert code == 3
    assert "the case has more, of which nothing is claimed: " in text


def test_names_in_a_certificate_stay_on_their_line(tmp_path):
    data = small().copy()
    data["about"]["case"] = "a\n\x1b[2K✓ everything"
    data["about"]["jax"] = "1\r2"
    path = tmp_path / "names.json"
    path.write_text(json.dumps(data))
    code, text = verify(path)
    assert code == 0
    assert text.startswith("✓ a??[2K✓ everything: c computes what b computes")
    assert not {one for one in text if not one.isprintable()} - {"\n"}
    assert "jax 1?2" in text
