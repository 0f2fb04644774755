"""Compiled programs are kept for what is compiled again, and nothing else is ever taken for it."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from equiv.running import compile_cache
from equiv.running.compile_cache import keep_compiled, keep_compiled_here

FOLDER = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """The folder of all installations."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "equiv" / "compiled"


def compile_in(name: str, data: bytes) -> list[str]:
    """What one process finds, and then adds."""
    with keep_compiled() as variables:
        own = Path(variables[FOLDER])
        found = sorted(path.name for path in own.iterdir())
        (own / f"{name}-cache").write_bytes(data)
    assert not own.exists()
    return found


def files(kept: Path) -> list[Path]:
    return sorted(path for path in kept.glob("*/*") if path.is_file())


def test_the_next_process_gets_what_was_compiled():
    assert compile_in("jit_a-1", zlib.compress(b"one")) == []
    assert compile_in("jit_b-2", zlib.compress(b"two")) == ["jit_a-1-cache"]
    assert compile_in("jit_b-2", zlib.compress(b"two")) == ["jit_a-1-cache", "jit_b-2-cache"]


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    """After a day, unless the process still runs."""
    monkeypatch.setattr(compile_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    names = (f"{killed.pid}-a", f"{killed.pid}-b", f"{os.getpid()}-c")
    old, fresh, running = (tmp_path / f"equiv-compiled-{one}" for one in names)
    for folder in (old, fresh, running):
        folder.mkdir()
        (folder / "jit_a-cache").write_bytes(b"")
    for folder in (old, running):
        os.utime(folder, (0, 0))
    compile_in("jit_a-1", zlib.compress(b"one"))
    assert (old.exists(), fresh.exists(), running.exists()) == (False, True, True)


@pytest.mark.parametrize("change", ["byte", "length", "name"])
def test_what_was_changed_on_the_disk_is_not_used(kept, change):
    compile_in("jit_a-1", zlib.compress(b"one"))
    (file,) = files(kept)
    data = file.read_bytes()
    if change == "name":
        file = file.rename(file.with_name(file.name.replace("jit_a-1-cache.", "jit_a-1-cache.0")))
    file.write_bytes({"byte": data[:-1] + b"?", "length": data[:-1], "name": data}[change])
    assert compile_in("jit_b-2", zlib.compress(b"two")) == []
    assert not file.exists()


def test_an_executable_of_another_program_has_another_name(kept):
    """One that is put below the digest of another file's bytes."""
    compile_in("jit_a-1", zlib.compress(b"one"))
    compile_in("jit_b-2", zlib.compress(b"two"))
    one, two = files(kept)
    two.write_bytes(one.read_bytes())
    assert compile_in("jit_a-1", zlib.compress(b"one")) == ["jit_a-1-cache"]


def test_what_a_killed_process_left_half_written_is_not_kept(kept):
    compile_in("jit_a-1", zlib.compress(b"one" * 99)[:-5])
    assert files(kept) == []


@pytest.mark.parametrize("changed", ["digest_installation", "_describe_processor"])
def test_another_installation_or_processor_shares_nothing(monkeypatch, changed):
    compile_in("jit_a-1", zlib.compress(b"one"))
    monkeypatch.setattr(compile_cache, changed, lambda: "another")
    assert compile_in("jit_a-1", zlib.compress(b"one")) == []


@pytest.mark.parametrize("name", ["EQUIV_CACHE", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_users_decide_for_themselves(monkeypatch, name):
    monkeypatch.setenv(name, "0")
    with keep_compiled() as variables:
        assert variables == {}


def test_a_folder_that_others_can_write_is_not_used(kept):
    compile_in("jit_a-1", zlib.compress(b"one"))
    (folder,) = kept.iterdir()
    folder.chmod(0o777)
    with keep_compiled() as variables:
        assert variables == {}


def test_without_a_folder_all_is_compiled(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with keep_compiled() as variables:
        assert variables == {}


def test_on_a_full_disk_all_is_compiled(monkeypatch):
    compile_in("jit_a-1", zlib.compress(b"one"))
    before = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with keep_compiled() as variables:
        assert variables == {}
    monkeypatch.setattr(Path, "write_bytes", before)
    assert compile_in("jit_a-1", zlib.compress(b"one")) == ["jit_a-1-cache"]


def test_no_more_than_the_limit_is_kept(kept, monkeypatch):
    monkeypatch.setattr(compile_cache, "MOST_BYTES", 20)
    for number in range(4):
        compile_in(f"jit_a-{number}", zlib.compress(b"one"))
    assert len(compile_in("jit_b", zlib.compress(b"two"))) == 1
    assert len(files(kept)) == 2


def test_a_process_that_has_jax_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    with keep_compiled_here():
        assert FOLDER not in compile_cache.os.environ


PROGRAM = """
import os, sys
from equiv.running.compile_cache import keep_compiled_here
with keep_compiled_here():
    import jax
    import numpy as np
    kind, factor, level = sys.argv[1], np.float32(sys.argv[2]), sys.argv[3]
    many = np.full((3, 500), factor)
    function = {
        "number": lambda x: x * float(factor),
        "array": lambda x: (x[:, None] * many).max(1),
        "host": lambda x: jax.pure_callback(lambda one: np.asarray(one) * factor, x, x) + 0,
    }[kind]
    before = set(os.listdir(os.environ["JAX_COMPILATION_CACHE_DIR"]))
    lowered = jax.jit(function).lower(jax.ShapeDtypeStruct((3,), "float32"))
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": level})
    added = set(os.listdir(os.environ["JAX_COMPILATION_CACHE_DIR"])) - before
print(len(added), compiled(np.ones(3, "float32"))[0])
"""


def compile_alone(kind: str, factor: float, level: int = 0) -> tuple[bool, float]:
    """Whether a program was compiled and kept by a process of its own, and its result."""
    command = [sys.executable, "-c", PROGRAM, kind, str(factor), str(level)]
    added, value = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(added) > 0, float(value)


@pytest.mark.slow
def test_only_the_same_program_and_options_compile_once():
    assert compile_alone("number", 2.0) == (True, 2.0)
    assert compile_alone("number", 2.0) == (False, 2.0)
    assert compile_alone("number", 2.0, level=1) == (True, 2.0)
    assert compile_alone("number", 2.0000002)[0]


@pytest.mark.slow
def test_another_constant_array_is_never_that_of_before():
    assert [compile_alone("array", factor)[1] for factor in (2.0, 3.0)] == [2.0, 3.0]


@pytest.mark.slow
def test_programs_that_call_the_host_are_not_kept():
    """Two host functions have one text in the program: what calls them has to be compiled in its own process."""
    assert [compile_alone("host", factor) for factor in (2.0, 3.0)] == [(False, 2.0), (False, 3.0)]
