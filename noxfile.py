"""Sessions: `nox` runs parity-cpu, `nox -s lint types tests` what CI runs, `nox -l` lists all. Arguments after `--`."""

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True  # an interpreter that is absent is not a pass
nox.options.sessions = ["parity-cpu"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)


def install(session: nox.Session, *groups: str, options: tuple[str, ...] = ()) -> None:
    """Install the project as it stands and the named dependency groups of pyproject.toml."""
    session.install(*options, "-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """The whole test suite, on the Python that runs nox."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """The whole test suite on every supported Python, each with the newest jax and flax that it can have."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """The whole test suite on the lowest versions that pyproject.toml allows and the oldest Python; needs uv."""
    if session.venv_backend != "uv":
        session.error("minimums: only uv can resolve to the lowest versions. Install uv.")
    install(session, "test", options=("--resolution", "lowest-direct"))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Planted faults: every check must notice its own."""
    install(session, "test")
    session.run("python", "-m", "pytest", "tests/test_faults.py", *session.posargs)


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


@nox.session(name="parity-cpu")
def parity_cpu(session: nox.Session) -> None:
    """Every case to a verdict on the CPU."""
    install(session)
    session.run("equiv", "run", *(session.posargs or ["cases"]), env={"JAX_PLATFORMS": "cpu"})


@nox.session
def bench(session: nox.Session) -> None:
    """Timings; alone on the machine, or they say nothing."""
    install(session, "bench")
    session.run("python", "tests/bench_run.py", *session.posargs)
    session.run("python", "tests/bench_growth.py")
