"""Sessions: `nox` runs parity-cpu, `nox -s lint types tests` what CI runs, `nox -l` lists all. Arguments after `--`."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True  # an interpreter that is absent is not a pass
nox.options.sessions = ["parity-cpu"]

PROJECT = nox.project.load_toml("pyproject.toml")
PARALLEL = ("-n", "auto", "--dist", "loadfile")  # a file to a process: its tests share what is traced
PYTHONS = nox.project.python_versions(PROJECT)
REPORTS = Path("reports")

PLANTED, HONEST = (f"tests/comparison/test_{name}.py" for name in ("planted_faults", "honest_variants"))

NEWEST = "newest"
PAIRS = ((NEWEST, NEWEST), ("0.9", NEWEST), (NEWEST, "0.11"), ("0.8", "0.11"), (NEWEST, "0.10"), ("0.7", "0.10"))
"""jax and flax. Older flax is beside the newest jax, and beside the last one that it still imports on."""

REFUSALS = ("refuted", "error", "blocked", "not run", "vacuous", "unidentifiable")
"""Grades of a check that is not known to be equal."""

Statement = tuple[str, dict[str, str], str]
"""Verdict, check to grade, and the first reason against it."""

ABSENT: Statement = ("absent", {}, "")

ANY = range(256)
"""Exit codes of what may fail: the failure is what is being looked for."""


def install(session: nox.Session, *groups: str, options: tuple[str, ...] = ()) -> None:
    """Install the project as it stands and the named dependency groups of pyproject.toml."""
    session.install(*options, "-e", ".[all]", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """The whole test suite, on the Python that runs nox; another one: `nox -s tests -P 3.12`."""
    install(session, "test", "browser")
    session.run("python", "-m", "pytest", *(session.posargs or PARALLEL))


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """The whole test suite on the lowest versions that pyproject.toml allows and the oldest Python; needs uv."""
    if session.venv_backend != "uv":
        session.error("minimums: only uv can resolve to the lowest versions. Install uv.")
    install(session, "test", options=("--resolution", "lowest-direct"))
    session.run("python", "-m", "pytest", *(session.posargs or PARALLEL))


@nox.session
def faults(session: nox.Session) -> None:
    """Planted faults, which every check must notice, and right variants on many seeds."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "", PLANTED, *session.posargs)
    session.run("python", "-m", "pytest", "-m", "", HONEST, *session.posargs, env={"EQUIV_SEEDS": "20"})


@nox.session
def slow(session: nox.Session) -> None:
    """Tests that are marked `slow` and in no session of their own; comparisons for one check, with every check."""
    install(session, "test", "browser")
    elsewhere = (f"--ignore={path}" for path in (PLANTED, HONEST, "tests/running"))
    session.run("python", "-m", "pytest", "-m", "slow", *elsewhere, *(session.posargs or PARALLEL))
    whole = ("tests/backends", "tests/comparison")
    session.run("python", "-m", "pytest", *whole, *(session.posargs or PARALLEL), env={"EQUIV_EVERY_CHECK": "1"})


@nox.session
def drills(session: nox.Session) -> None:
    """Runs that are killed, stopped, out of memory or of disk, or lose a worker of their cluster: nothing is lost."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "", "tests/running", *session.posargs)


@nox.session
def search(session: nox.Session) -> None:
    """Search for what would break a verdict: wrong proofs of random programs, and ports that cheat."""
    install(session, "test")
    session.run("python", "tests/soundness_run.py", *(session.posargs or ["400"]))
    session.run("python", "tests/cheating_run.py")


@nox.session
def certificates(session: nox.Session) -> None:
    """Certify the proofs of every case and tamper 10,000 times: the checker accepts what is true, and nothing else."""
    install(session, "test")
    session.run("python", "tests/tamper_run.py", *session.posargs)


@nox.session
def share(session: nox.Session) -> None:
    """GPT, ViT and ResNet of 12 blocks: everything that every pair of libraries computes has to be proved."""
    install(session, "test")
    session.run("python", "tests/proof_share.py", *(session.posargs or ["12"]))


@nox.session
def zoo(session: nox.Session) -> None:
    """Every model of cases/models to a verdict, what that costs, and faults in them; hours. Names of models select."""
    install(session, "test")
    session.run("python", "tests/zoo_run.py", *session.posargs)
    session.run("python", "tests/zoo_faults.py", *session.posargs)


@nox.session
def locate(session: nox.Session) -> None:
    """Faults of porters in five models: are the layer, the lines and the cause named? Parts of their names select."""
    install(session, "test")
    session.run("python", "tests/locate_run.py", *session.posargs)
    session.run("python", "tests/locate_run.py", "--held", *session.posargs)


@nox.session
def repros(session: nox.Session) -> None:
    """Ten reproductions, each run where only jax and numpy are installed; parts of the names of faults select."""
    install(session, "test")
    folder = Path(session.create_tmp()) / "alone"
    session.run("python", "-m", "venv", "--clear", str(folder))
    python = str(folder / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "jax", "numpy", external=True)
    session.run("python", "tests/repros_run.py", python, *session.posargs)


@nox.session
def mixtures(session: nox.Session) -> None:
    """All 64 mixtures of Linen and NNX in a model of six layers, in both directions, and faults in a sample of them."""
    install(session, "test")
    session.run("python", "tests/mixtures_run.py", *session.posargs)


@nox.session
def frontier(session: nox.Session) -> None:
    """Decoders of the sizes of frontier models, with gradients and AdamW: all is proved, and nothing is an array."""
    install(session, "test")
    session.run("python", "tests/frontier_run.py", *session.posargs)


@nox.session
def published(session: nox.Session) -> None:
    """Published models and their ports, judged without a layer table; names of pairs select."""
    install(session, "test")
    needs = session.run("python", "tests/published_run.py", "--needs", *session.posargs, silent=True)
    if packages := str(needs or "").split():
        session.install(*packages)
    session.run("python", "tests/published_run.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and the direction of imports."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))  # reads sources only, needs no jax
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Types of equiv/, against the installed libraries."""
    install(session, "lint")
    session.run("pyright", *session.posargs)


OLD = (("0.4.35", "0.8.5", "0.0.12"), ("0.4.35", "0.10.2", "0.0.13"), ("0.7.2", "0.11.2", "0.0.15"))
"""jax, flax and haiku of environments that an old reference lives in; NNX is read from flax 0.11 on."""


@nox.session(name="old-reference", python=PYTHONS[0])
def old_reference(session: nox.Session) -> None:
    """Freeze references on old releases, and judge ports and planted faults on the newest."""
    install(session, "test")
    for jax, flax, haiku in OLD:
        folder = Path(session.create_tmp()) / f"jax-{jax}-flax-{flax}"
        session.run("python", "-m", "venv", "--clear", str(folder))
        pins = (f"jax=={jax}", f"jaxlib=={jax}", f"flax=={flax}", f"dm-haiku=={haiku}")
        python = str(folder / "bin" / "python")
        session.run(python, "-m", "pip", "install", "-q", *pins, "-e", ".", external=True)
        session.run("python", "tests/old_reference_run.py", python, *session.posargs)


def parity(session: nox.Session, jax: str, platform: str, devices: int = 1, flags: str = "") -> None:
    """Every case to a verdict on one platform, which must be the one that was asked for.

    Args:
        session: its results go to the folder of its name, under reports/.
        jax: requirement of jax, with the extra for the platform.
        platform: for JAX_PLATFORMS; JAX then fails where it is not there.
        devices: how many there must be, at least.
        flags: XLA_FLAGS.
    """
    session.install("-e", ".[haiku]", jax)
    folder = REPORTS / session.name
    variables = {"JAX_PLATFORMS": platform} | ({"XLA_FLAGS": flags} if flags else {})
    session.run("equiv", "run", *(session.posargs or ["cases"]), "--reports", str(folder), env=variables)
    found = json.loads((folder / "results.json").read_text())["environment"]
    if int(found["devices"]) < devices:
        session.error(f"{session.name}: {found['devices']} devices, wanted {devices}. Nothing is known of {devices}.")


@nox.session(name="parity-cpu")
def parity_cpu(session: nox.Session) -> None:
    """Every case to a verdict on the CPU."""
    parity(session, "jax", "cpu")


@nox.session(name="parity-fake8")
def parity_fake8(session: nox.Session) -> None:
    """Every case to a verdict on a CPU that JAX takes for eight devices; fails where nothing is sharded."""
    parity(session, "jax", "cpu", devices=8, flags="--xla_force_host_platform_device_count=8")
    found = json.loads((REPORTS / session.name / "results.json").read_text())
    scopes = (case.get("scope") or {} for case in found["cases"])
    if not any(sum(mesh["sharded"].values()) for scope in scopes for mesh in scope.get("meshes", ())):
        session.error(
            f"{session.name}: no array of any case was in different parts on the devices: that is no run on eight. Run "
            "a case with meshes, such as cases/sharded_mlp.py."
        )


@nox.session(name="parity-cuda")
def parity_cuda(session: nox.Session) -> None:
    """Every case to a verdict on an NVIDIA GPU; fails where there is none."""
    driver = nvidia_driver()
    if driver is None:
        session.error("parity-cuda: nvidia-smi finds no GPU here, so nothing is run: that is no pass. Run it with one.")
    # CUDA 13 needs driver 580 (CUDA toolkit 13.0 release notes, table 2).
    parity(session, f"jax[cuda{13 if driver >= 580 else 12}]", "cuda")


@nox.session(name="parity-tpu")
def parity_tpu(session: nox.Session) -> None:
    """Every case to a verdict on a TPU; fails where there is none."""
    if not tpus(Path("/sys/bus/pci/devices")):
        session.error("parity-tpu: no TPU on the PCI bus here, so nothing is run: that is no pass. Run it with one.")
    parity(session, "jax[tpu]", "tpu")


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver; None where there is no GPU."""
    if (command := shutil.which("nvidia-smi")) is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    version = re.match(r"\d+", done.stdout)
    return int(version[0]) if done.returncode == 0 and version else None


def tpus(bus: Path) -> int:
    """How many of Google's PCI devices are no network card (0x0042); jax/_src/hardware_utils.py looks there, too."""
    cards = [device for device in bus.glob("*") if (device / "vendor").read_text().strip() == "0x1ae0"]
    return sum((card / "device").read_text().strip() != "0x0042" for card in cards)


@nox.session
@nox.parametrize("jax, flax", PAIRS, ids=[f"jax-{jax}-flax-{flax}" for jax, flax in PAIRS])
def matrix(session: nox.Session, jax: str, flax: str) -> None:
    """Every case on one pair of releases; what does not run there is a finding, with its reason.

    Bounds of pyproject.toml for jax and flax do not count here, so equiv is installed without its dependencies. The
    newest pair must pass.
    """
    folder = REPORTS / "matrix" / f"jax-{jax}-flax-{flax}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session.notify("matrix-report")
    pins = [name if release == NEWEST else f"{name}=={release}.*" for name, release in (("jax", jax), ("flax", flax))]
    extras = PROJECT["project"]["optional-dependencies"]["haiku"]
    bounds = PROJECT["project"]["optional-dependencies"]["compare"]
    others = [
        name for name in (*PROJECT["project"]["dependencies"], *extras, *bounds) if not re.match(r"(jax|flax)\b", name)
    ]
    said = [session.install(*pins, *others, silent=True, success_codes=ANY)]
    said += [session.install("--no-deps", "-e", ".", silent=True, success_codes=ANY)]
    command = ("equiv", "run", *(session.posargs or ["cases"]), "--reports", str(folder))
    variables = {"JAX_PLATFORMS": "cpu", "EQUIV_UNTESTED_RELEASES": "1"}
    said += [session.run(*command, silent=True, success_codes=ANY, env=variables)]
    (folder / "output.txt").write_text("\n".join(text for text in said if isinstance(text, str)))
    if jax == flax == NEWEST and " Same: " not in " ".join(found := list(compared(folder.parent, [folder.name]))):
        session.error(f"the newest jax and flax must pass: {found[0]}")


@nox.session(name="matrix-report", venv_backend="none")
def matrix_report(session: nox.Session) -> None:
    """What the last runs of the matrix found, and which case changed between releases."""
    names = [f"jax-{jax}-flax-{flax}" for jax, flax in PAIRS]
    lines = list(compared(REPORTS / "matrix", [name for name in names if (REPORTS / "matrix" / name).is_dir()]))
    (REPORTS / "matrix" / "README.md").write_text("\n".join(["# Releases compared", "", *lines, ""]))
    session.log("\n".join(["releases compared", *lines]))


def compared(folder: Path, names: list[str]) -> Iterator[str]:
    """Every pair's versions and verdict, and how it differs from the first; a pair without results, with its reason."""
    first: dict[str, Any] | None = None
    for name in names:
        path = folder / name / "results.json"
        if not path.is_file():
            yield f"- {name}: does not run: {reason((folder / name / 'output.txt').read_text())}"
            continue
        run = json.loads(path.read_text())
        versions = ", ".join(f"{library} {run['environment'].get(library)}" for library in ("jax", "flax", "dm-haiku"))
        yield f"- {name} ({versions}): {run['headline']}"
        if first is not None:
            yield from (f"  - {change}" for change in list(changes(first, run)) or ["the same, in every check"])
        first = first or run


def reason(output: str) -> str:
    """The first line that says what is wrong, with the two after it: what comes later follows from it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [index for index, line in enumerate(lines) if re.search(r"(?i:^error)|^equiv:|No solution|Error\b", line)]
    return " ".join(lines[wrong[0] : wrong[0] + 3] if wrong else lines[-1:]) or "no output"


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What the second run says otherwise than the first; candidates of which the same is said share a line."""
    before, after = statements(old), statements(new)
    lines: dict[str, list[str]] = {}
    for key in {**before, **after}:
        if any(key not in run and key.rpartition("-")[0] in run for run in (before, after)):
            continue  # the case as a whole could not be used: that is said once
        (was, graded, _), (now, grades, why) = before.get(key, ABSENT), after.get(key, ABSENT)
        other = [f"{name} {graded.get(name)} -> {grade}" for name, grade in grades.items() if graded.get(name) != grade]
        if was != now:
            text = f"{was} -> {now}: {why}" if key in before else f"{now}: {why}"
            lines.setdefault(text.removesuffix(": "), []).append(key)
        elif other:
            lines.setdefault(f"{now}, with {', '.join(other)}", []).append(key)
    yield from (f"{', '.join(keys)}: {said}" for said, keys in lines.items())


def statements(run: dict[str, Any]) -> dict[str, Statement]:
    """Case and candidate to what is said of it; of a case that could not be used, the case alone."""
    found: dict[str, Statement] = {}
    for case in run["cases"]:
        if case["problem"]:
            found[case["name"]] = ("error", {}, case["problem"])
        for candidate, verdict in case["verdicts"].items():
            checks = [check for check in case["checks"] if check["candidate"] == candidate]
            against = [f"{one['check']} {one['grade']}, {one['summary']}" for one in checks if one["grade"] in REFUSALS]
            grades = {check["check"]: check["grade"] for check in checks}
            found[f"{case['name']}-{candidate}"] = (verdict, grades, next(iter(against), ""))
    return found


@nox.session
def bench(session: nox.Session) -> None:
    """Timings; alone on the machine, or they say nothing."""
    install(session, "bench")
    for script in ("run", "many", "growth", "plugin", "page", "infer", "convert", "timing", "moves", "explain"):
        session.run("python", f"tests/benchmarks/bench_{script}.py")
    session.run("equiv", "bench")


@nox.session
def report(session: nox.Session) -> None:
    """One HTML page from the results of `nox`, or of the files given after `--`."""
    results = session.posargs or [str(path) for path in sorted(REPORTS.glob("parity-*/results.json"))]
    if not results:
        session.error("report: no results under reports/. Run nox first, or give results files after --.")
    install(session)
    session.run("equiv", "report", *results, "-o", str(REPORTS / "parity.html"))
