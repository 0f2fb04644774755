"""`equiv convert` from the command line, and the converted model compared with the original."""

import json
from dataclasses import replace

import convert_helpers as h
import helpers
import numpy as np
import pytest
from click.testing import CliRunner

from equiv.conversion.formats import npz, registry
from equiv.conversion.formats.checkpoint import CheckpointError, bytes_of
from equiv.conversion.formats.registry import open_checkpoint
from equiv.frontends.cli.main import main

NAME, OPTIMIZER = "layers/linear", "adam"
CASE = str(helpers.CASES / "layers" / "linear.py")


def invoke(*arguments) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    ran = CliRunner().invoke(main, ["convert", *map(str, arguments)])
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture
def old(tmp_path):
    """A checkpoint of Haiku without an optimizer, which the case's own file does not name."""
    return h.save_npz(tmp_path / "old.npz", {"params": h.trained(NAME, "haiku", OPTIMIZER)["params"]})


def test_it_says_first_what_was_converted_and_where_it_is(old, tmp_path) -> None:
    """And how sure that is."""
    code, out, err = invoke(old, "--case", CASE, "--to", "nnx", "-o", tmp_path / "new.safetensors", "--verify")
    assert (code, err) == (0, "")
    first, second, last = out.splitlines()
    assert first.startswith("Converted: 2 leaves, 112 bytes, from haiku (npz) to nnx (safetensors): ")
    assert first.endswith("new.safetensors")
    assert second == "2 unchanged"
    assert last.startswith("verified: same: outputs exact, gradients exact")


def test_a_dry_run_describes_each_leaf_and_writes_nothing(old, tmp_path) -> None:
    """As a table."""
    code, out, _ = invoke(old, "--case", CASE, "--to", "linen", "-o", tmp_path / "new", "--dry-run")
    assert code == 0
    assert out.splitlines()[0] == "Would convert 2 leaves, 112 bytes, from haiku to linen"
    assert [line.split() for line in out.splitlines() if line.startswith("params/kernel")] == [
        ["params/kernel", "float32[3,", "7]", "unchanged", "params/linear/w"]
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]


def test_the_manifest_is_printed_as_json_on_request(old, tmp_path) -> None:
    """It is the one that is written next to the checkpoint."""
    code, out, _ = invoke(old, "--case", CASE, "--to", "linen", "-o", tmp_path / "new.msgpack", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "new.msgpack.manifest.json").read_text())
    assert json.loads(out)["source"] == {"file": "old.npz", "format": "npz", "backend": "haiku"}
    assert str(tmp_path) not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "torch"), r"equiv: linear: the case has no torch; it has haiku, linen, nnx."),
        (("--to", "nnx", "--random", "seed:x"), "equiv: --random 'seed:x': no such policy. Pass seed:N, keep or omit."),
        (("--to", "nnx", "--format", "torch"), "cannot write 'torch'. Pass --format with one of npz, safetensors"),
        (("--to", "nnx", "--case", "nowhere.py"), "equiv: nowhere.py: no such file or folder"),
        (("--to", "nnx", "--case", str(helpers.CASES / "layers")), "cases, wanted one. Give a case file."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(old, tmp_path, arguments, message) -> None:
    """Never a traceback."""
    code, out, err = invoke(old, "--case", CASE, "-o", tmp_path / "new", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_conversion_to_another_model_exits_one_and_is_removed(old, tmp_path) -> None:
    """A case whose layer table swaps two layers of equal shapes maps every leaf, to the wrong place."""
    swapped = tmp_path / "swapped.py"
    text = (helpers.CASES / "layers" / "stacked_unrolled.py").read_text()
    assert 'nnx=f"linears.{index}"' in text
    swapped.write_text(text.replace('nnx=f"linears.{index}"', 'nnx=f"linears.{(1, 0, 2, 3)[index]}"'))
    old = h.save_npz(tmp_path / "two.npz", {"params": h.trained("layers/stacked_unrolled", "haiku", "adam")["params"]})
    code, out, err = invoke(old, "--case", swapped, "--to", "nnx", "-o", tmp_path / "new.npz", "--verify")
    assert (code, out) == (1, "")
    assert "new.npz: the converted model is different: outputs refuted" in err
    assert "It is not kept." in err
    assert not (tmp_path / "new.npz").exists()


def test_a_leaf_read_back_unlike_it_was_written_is_found(old, tmp_path, monkeypatch) -> None:
    """A disk or a writer that changes a bit: planted in the writer of npz."""

    def corrupting(file, outgoing) -> None:
        npz.write(file, outgoing)
        data = bytearray(file.read_bytes())
        kernel = next(leaf for leaf in outgoing.leaves if leaf.path[-1] == "kernel")
        bits = bytes(bytes_of(kernel.make()))
        other = bytes([bits[0] ^ 1]) + bits[1:]
        with np.load(file) as found:
            arrays = dict(found)
        arrays["params/kernel"] = np.frombuffer(other, "f4").reshape(kernel.spec.shape)
        assert data
        np.savez(file, **arrays)

    others = (format for format in registry.FORMATS if format is not npz.NPZ)
    monkeypatch.setattr(registry, "FORMATS", (replace(npz.NPZ, write=corrupting), *others))
    with pytest.raises(
        CheckpointError, match=r"new\.npz: leaf 'params/kernel' was read back with other bytes than were"
    ):
        h.take_over(old, NAME, "linen", tmp_path / "new.npz", verify=True)
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]


def test_the_help_names_every_format_that_is_written() -> None:
    """The command is shown without importing JAX, so its help cannot ask the registry."""
    text = CliRunner().invoke(main, ["convert", "--help"]).output
    line = " ".join(text.split()).partition("--format TEXT ")[2].partition("default")[0]
    assert {format.name for format in registry.FORMATS if format.write} == set(
        line.strip(" ;").replace(" or ", ", ").split(", ")
    )


def test_whose_checkpoint_it_is_is_found_out_or_asked(tmp_path) -> None:
    """By its leaves; where two libraries have the same names, by the collections; else `--from` is needed."""
    carry = h.trained(h.ADAM, "linen")
    variables = {name: carry[name] for name in ("params", "batch_stats")}
    file = h.save_npz(tmp_path / "old.npz", variables)
    assert h.take_over(file, h.ADAM, "haiku", tmp_path / "one.npz").source.backend == "linen"
    bare = {
        f"{module}/{leaf}": array
        for tree in variables.values()
        for module, leaves in tree.items()
        for leaf, array in leaves.items()
    }
    np.savez(tmp_path / "bare.npz", **bare)
    assert h.take_over(tmp_path / "bare.npz", h.ADAM, "haiku", tmp_path / "two.npz").source.backend == "nnx"
    np.savez(tmp_path / "odd.npz", **{f"odd/{name}": array for name, array in bare.items()})
    with pytest.raises(CheckpointError, match=r"odd\.npz: its leaves fit linen and nnx\. Pass --from with one of them"):
        h.take_over(tmp_path / "odd.npz", h.ADAM, "haiku", tmp_path / "no.npz")
    assert h.take_over(tmp_path / "odd.npz", h.ADAM, "haiku", tmp_path / "three.npz", origin="linen")


@pytest.mark.parametrize("nesting", ["params/params/", "model/params/", "state/0/", ""])
def test_one_common_prefix_before_the_parameters_makes_no_difference(nesting, tmp_path) -> None:
    """`params/params`, a step of training, nothing at all."""
    params = h.trained(NAME, "linen", OPTIMIZER)["params"]
    np.savez(tmp_path / "old.npz", **{f"{nesting}{name}": array for name, array in params.items()})
    h.take_over(tmp_path / "old.npz", NAME, "haiku", tmp_path / "new.npz", origin="linen")
    checkpoint = open_checkpoint(tmp_path / "new.npz")
    assert np.array_equal(checkpoint.read(("params/linear/w",)), params["kernel"])
    checkpoint.close()


@pytest.mark.parametrize(("form", "count"), [("model", 10), ("optimizer alone", None), ("by number", 24)])
def test_the_nested_forms_of_an_optimizer_are_read(form, count, tmp_path) -> None:
    """`nnx.state(model)`, and the states of a tuple."""
    _, states = h.trained(h.ADAM, "nnx")
    tree = {"model": states[0], "optimizer alone": {"o": states[1]}, "by number": states}[form]
    file = h.save_orbax(tmp_path / "old", tree)
    if count is None:
        with pytest.raises(CheckpointError, match=r"old: \d+ of the 24 leaves of nnx missing, first 'model/bn/bias'"):
            h.take_over(file, h.ADAM, "nnx", tmp_path / "new.npz", origin="nnx", random="keep")
    else:
        manifest = h.take_over(file, h.ADAM, "nnx", tmp_path / "new.npz", origin="nnx", random="keep")
        assert len(manifest.leaves) == count
