"""What a process is given to run, and what it gives back: plain data, which a cluster can send."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.core.case_files import CaseFile
from equiv.core.results import RunResult


@dataclass(frozen=True)
class TaskOptions:
    """Options of a run that every case has; see `equiv.frontends.run.run`.

    Attributes:
        prove_only: prove what can be proved, and run nothing.
        selfcheck: plant faults in every candidate too.
        initial: compare the distributions of initial values too.
        against: bundle of a frozen reference; None: the case's own reference.
        checks: names of the checks that are made; empty: those that each case asks for.
        certificates: folder for the certificates of all proofs; None: none are wanted.
    """

    prove_only: bool = False
    selfcheck: bool = False
    initial: bool = False
    against: Path | None = None
    certificates: Path | None = None
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseTask:
    """One case that is to be run.

    Attributes:
        file: the case.
        options: of the run.
    """

    file: CaseFile
    options: TaskOptions

    @property
    def name(self) -> str:
        """Of the case."""
        return self.file.name


@dataclass(frozen=True)
class Limits:
    """What one case may take.

    Attributes:
        seconds: of wall time; None: any.
        memory: bytes of resident memory of its process; None: any.
    """

    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class CaseAnswer:
    """The result of one case.

    Attributes:
        name: of the case.
        run: a run of this case alone.
        certificates: candidate and the certificate of its proofs, `equiv.certificates.write.Certificate`.
    """

    name: str
    run: RunResult
    certificates: tuple[tuple[str, Any], ...] = ()
