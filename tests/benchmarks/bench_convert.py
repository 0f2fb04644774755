"""Throughput of a conversion against a plain copy of the same bytes, and its peak memory.

Each pair of formats runs in a process of its own; in it conversion and copy take turns, both down to the disk (fsync),
and the medians are compared. Just before either, a copy is made and removed: on a virtual machine memory for files is
several times slower where it has lain idle. Memory is what the process holds itself (RssAnon, sampled) and its largest
resident set, which counts pages of mapped files too.

    python tests/benchmarks/bench_convert.py [--gib 2] [--rounds 3] [FROM:TO ...]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PAIRS = (
    "safetensors:safetensors",
    "npz:safetensors",
    "npz:npz",
    "safetensors:msgpack",
    "msgpack:npz",
    "safetensors:orbax",
    "orbax:safetensors",
)
WIDTH = 2048


def case_of(layers: int):
    """A stack of square layers, written out in Haiku and NNX."""
    from equiv.core.case import Case
    from equiv.core.layers import linear

    def haiku():
        import haiku as hk

        def forward(x):
            for index in range(layers):
                x = hk.Linear(WIDTH, name=f"linear_{index}")(x)
            return x

        return hk.without_apply_rng(hk.transform(forward))

    def nnx(rngs):
        from flax import nnx

        class Model(nnx.Module):
            def __init__(self, rngs: nnx.Rngs):
                self.linears = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(layers)])

            def __call__(self, x):
                for layer in self.linears:
                    x = layer(x)
                return x

        return Model(rngs)

    rows = tuple(linear(f"{index}", haiku=f"linear_{index}", nnx=f"linears.{index}") for index in range(layers))
    return Case("bench", {"haiku": haiku, "nnx": nnx}, {"x": f"float32[2,{WIDTH}]"}, rows)


def one(source: Path, format: str, folder: Path, layers: int, rounds: int) -> dict[str, float]:
    """Convert and copy, one after the other; called in a process of its own."""
    from equiv.conversion.convert import ConversionRequest, convert_checkpoint
    from equiv.conversion.formats.registry import open_checkpoint
    from equiv.core.case_files import LoadedCase

    loaded = LoadedCase("bench", "", case_of(layers))
    out, plain = folder / f"out.{format}", folder / "plain"
    begun: list[float] = []
    checkpoint = open_checkpoint(source)
    checkpoint.close()
    before, peak, stop = anonymous(), [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(peak, stop), daemon=True)
    watcher.start()
    seconds: dict[str, list[float]] = {"convert": [], "write": [], "copy": [], "prime": []}
    for _ in range(rounds):
        clock = time.perf_counter()

        def begin(_):
            ready = time.perf_counter()
            prime(source, plain)
            begun.append(time.perf_counter())
            seconds["prime"].append(begun[-1] - ready)
            return lambda _: None

        convert_checkpoint(ConversionRequest(source, loaded, "nnx", out, origin="haiku", format=format), begin=begin)
        seconds["convert"].append(time.perf_counter() - clock - seconds["prime"][-1])
        seconds["write"].append(time.perf_counter() - begun[-1])
        remove(out)
        out.with_name(f"{out.name}.manifest.json").unlink()
        prime(source, plain)
        clock = time.perf_counter()
        copy(source, plain)
        seconds["copy"].append(time.perf_counter() - clock)
        remove(plain)
    stop.set()
    watcher.join()
    resident = int(next(line for line in status() if line.startswith("VmHWM")).split()[1])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {**medians, "peak": (peak[0] - before) / 1024, "resident": resident / 1024}


def prime(source: Path, target: Path) -> None:
    """Leave memory for files of that size as a copy leaves it."""
    copy(source, target)
    remove(target)


def copy(source: Path, target: Path) -> None:
    """A plain copy, down to the disk."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    for file in (target, *target.rglob("*")):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def remove(path: Path) -> None:
    """A file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def status() -> list[str]:
    """What Linux knows of this process."""
    return Path("/proc/self/status").read_text().splitlines()


def anonymous() -> int:
    """KiB that the process holds itself."""
    return int(next(line for line in status() if line.startswith("RssAnon")).split()[1])


def watch(peak: list[int], stop: threading.Event) -> None:
    """Sample the memory every five milliseconds."""
    while not stop.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.005)


def make(folder: Path, layers: int, formats: list[str]) -> None:
    """The same random checkpoint in every format that is read."""
    import numpy as np

    from equiv.conversion.formats.checkpoint import OutgoingCheckpoint, OutgoingLeaf
    from equiv.conversion.formats.registry import write_checkpoint
    from equiv.conversion.formats.tree_paths import nest
    from equiv.core.leaves import LeafSpec

    rng = np.random.default_rng(0)
    shapes = {("params", f"linear_{i}", name): shape for i in range(layers) for name, shape in SHAPES.items()}
    leaves = [
        OutgoingLeaf(path, LeafSpec(shape, "float32"), lambda shape=shape: rng.standard_normal(shape, dtype=np.float32))
        for path, shape in shapes.items()
    ]
    for format in formats:
        write_checkpoint(
            folder / f"source.{format}", format, OutgoingCheckpoint(leaves, {}, lambda arrays: nest(arrays.items()))
        )


SHAPES = {"w": (WIDTH, WIDTH), "b": (WIDTH,)}


def main() -> None:
    """Print one line a pair."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="*", default=PAIRS)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3)
    given = parser.parse_args()
    layers = max(1, round(given.gib * 2**30 / (WIDTH * WIDTH * 4)))
    if given.one:
        source, format, folder = given.one
        print(json.dumps(one(Path(source), format, Path(folder), layers, given.rounds)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, layers, list(dict.fromkeys(pair.split(":")[0] for pair in given.pairs)))
        print(f"{layers} layers, {given.gib:g} GiB, {WIDTH * WIDTH * 4 / 2**20:g} MiB the largest leaf")
        for pair in given.pairs:
            source, format = pair.split(":")
            command = [sys.executable, __file__, f"--gib={given.gib}", f"--rounds={given.rounds}"]
            asked = [*command, "--one", str(folder / f"source.{source}"), format, str(folder)]
            ran = subprocess.run(asked, check=True, capture_output=True, text=True)
            found = json.loads(ran.stdout.splitlines()[-1])
            ratio = found["copy"] / found["write"]
            print(
                f"{pair:24} {ratio:5.2f} of a copy ({given.gib / found['write']:.2f} GiB/s; copy "
                f"{given.gib / found['copy']:.2f}), whole command {found['convert']:.1f} s, "
                f"peak {found['peak']:.0f} MiB of its own, {found['resident']:.0f} MiB resident",
                flush=True,
            )


if __name__ == "__main__":
    main()
