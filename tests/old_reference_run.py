"""References frozen by the interpreter of an old environment, and ports judged against them here, on the newest jax.

python tests/old_reference_run.py OLD/bin/python [CASE ...]

Every port of a case has to be `same` as the frozen reference, and every planted fault `different`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from equiv.backends.registry import all_libraries
from equiv.core.releases import read_release

ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """A fault in the source of a case: what is replaced in which port, by what."""

    port: str
    old: str
    new: str


FAULTS = {
    "custom_linear": Fault("nnx", "x @ self.w", "1.001 * x @ self.w"),
    "dropout": Fault("nnx", "nnx.Dropout(0.5", "nnx.Dropout(0.4"),
    "batch_norm": Fault("nnx", "momentum=0.99", "momentum=0.98"),
    "train_state_batch_norm": Fault("nnx", "optax.adam(1e-3)", "optax.adam(1.1e-3)"),
    "layers/attention": Fault(
        "linen",
        "num_heads=2, qkv",
        "attention_fn=lambda q, k, v, **_: nn.dot_product_attention(1.01 * q, k, v), num_heads=2, qkv",
    ),
    "layers/rnn_lstm": Fault("nnx", "nnx.LSTMCell(3, 4", "nnx.LSTMCell(3, 4, gate_fn=nnx.hard_sigmoid"),
}
"""Case to the fault that is planted in it."""


def list_ports(python: str) -> tuple[str, ...]:
    """The libraries whose models can be frozen in an environment."""
    oldest = next(one.oldest for one in all_libraries() if one.name == "nnx")
    command = [python, "-c", "from importlib import metadata; print(metadata.version('flax'))"]
    installed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ("haiku", "linen", *(("nnx",) if read_release(installed) >= read_release(oldest) else ()))


def frozen(python: str, case: Path, port: str, bundle: Path) -> float:
    """Freeze a port with another interpreter, and return the seconds."""
    began = time.perf_counter()
    command = [python, "-m", "equiv", "freeze", str(case), "--port", port, "-o", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        sys.exit(f"{case.name} {port}: not frozen: {done.stderr.strip()[-2000:]}")
    return time.perf_counter() - began


def judged(case: Path, bundle: Path, reports: Path) -> dict[str, tuple[str, str]]:
    """Port to its verdict here, and the grades of its checks."""
    command = [sys.executable, "-m", "equiv", "run", str(case), "--against", str(bundle), "--reports", str(reports)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    try:
        run = json.loads((reports / "results.json").read_text())
    except OSError:
        sys.exit(f"{case.name}: not judged: {done.stderr.strip()[-2000:]}")
    (found,) = run["cases"]
    grades = {port: [c for c in found["checks"] if c["candidate"] == port] for port in found["verdicts"]}
    return {
        port: (verdict, ", ".join(f"{check['check']} {check['grade']}" for check in grades[port]))
        for port, verdict in found["verdicts"].items()
    } or {"": ("error", found["problem"])}


def environment() -> dict[str, str]:
    """The variables of the environment, without what is said of this Python's own packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}


def main(python: str, *names: str) -> int:
    """Run every case with every old port of it, and print what is wrong last."""
    wrong, ports = [], list_ports(python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in names or FAULTS:
            fault, case = FAULTS[name], ROOT / "cases" / f"{name}.py"
            faulty = folder / case.name
            assert fault.old in case.read_text(), f"{name}: {fault.old!r} does not occur"
            faulty.write_text(case.read_text().replace(fault.old, fault.new))
            for port in ports:
                bundle = folder / f"{case.stem}.{port}.equiv"
                seconds = frozen(python, case, port, bundle)
                print(f"{name}: {port} frozen in {seconds:.0f} s, {bundle.stat().st_size / 1e6:.3g} MB", flush=True)
                for candidate, (verdict, why) in judged(case, bundle, folder / "right").items():
                    print(f"  {candidate}: {verdict}: {why}", flush=True)
                    wrong += [f"{name}: {candidate} against {port}: {verdict}"] * (verdict != "same")
                if fault.port != port:
                    found = judged(faulty, bundle, folder / "faulty")
                    verdict, why = found.get(fault.port) or next(iter(found.values()))
                    print(f"  {fault.port} with {fault.new!r}: {verdict}: {why}", flush=True)
                    wrong += [f"{name}: faulty {fault.port} against {port}: {verdict}"] * (verdict != "different")
    print("\n".join(["", *wrong]) if wrong else "all as it has to be")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
