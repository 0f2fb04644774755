"""`equiv.run`: cases to a verdict, as `equiv run` does. Imports no JAX: processes of their own do."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from equiv.core.case_files import CaseFile, find_case_files
from equiv.core.checks import read_checks
from equiv.core.files import write_file
from equiv.core.join_runs import join_runs
from equiv.core.printable import file_name
from equiv.core.releases import check_releases
from equiv.core.results import CaseResult, RunResult
from equiv.errors import EquivError
from equiv.frontends.arguments import check_path, say_nothing, select_shard
from equiv.running.journal import FOLDER, Journal
from equiv.running.run_tasks import Listener, Place, run_tasks
from equiv.running.task import CaseAnswer, CaseTask, TaskOptions

if TYPE_CHECKING:
    from equiv.certificates.write import Certificate

IN_THIS_PROCESS = Place(isolated=False)


def run(
    paths: Sequence[str | Path] | str | Path = ("cases",),
    expression: str = "",
    *,
    prove_only: bool = False,
    selfcheck: bool = False,
    initial: bool = False,
    against: str | Path | None = None,
    certificates: str | Path | None = None,
    checks: Sequence[str] = (),
    shard: str | None = None,
    place: Place = IN_THIS_PROCESS,
    journal: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] = say_nothing,
    finished: Callable[[CaseResult], None] = say_nothing,
    certified: Callable[[Path, "Certificate"], None] = lambda *_: None,
    counted: Callable[[int, int], None] = lambda *_: None,
) -> RunResult:
    """Compare every case under some paths, as `equiv run` does; a case that cannot be used is a result too.

    Args:
        paths: case files, or folders of them; one, or several.
        expression: words with `and`, `or`, `not` that select cases by name.
        prove_only: prove what can be proved, and run nothing.
        selfcheck, initial: also plant faults in every candidate; compare the distributions of initial values.
        against: a bundle of `freeze`, used instead of the reference of the case that it was made of.
        certificates: write the certificates of all proofs to this folder, for `equiv verify`.
        checks: names of the checks that are made; empty: those that each case asks for.
        shard: `k/n`: the k-th of n parts of the cases.
        place: where cases are run: in this process (the default), in others, or on a cluster. A program that has others
            started needs `if __name__ == "__main__":`, as for `multiprocessing`.
        journal: folder that keeps every result as soon as it is found; None: none is kept.
        resume: take from the journal what has a verdict there, and has not changed since.
        progress, finished: called with a text for every stage; called with the result of every case.
        certified: called with every certificate and its file.
        counted: called with the number of cases, and how many of them are taken from the journal.

    Returns:
        The results, with a verdict. An interrupt keeps the finished ones, and the others are named.

    Raises:
        EquivError: there are no cases, options exclude each other, or jax or flax is too old to compare with.
    """
    check_releases()
    files = _find_files(paths, expression)
    given = _check_options(TaskOptions(prove_only, selfcheck, initial), against, certificates)
    options = replace(given, checks=tuple(checks) and read_checks(",".join(checks)))
    if options.against is not None:
        files = _frozen_case(files, options.against)
    started, clock = datetime.now(UTC), time.perf_counter()
    tasks = [CaseTask(file, options) for file in _name_by_path(select_shard(shard, files))]
    kept = Journal(None if journal is None else check_path("journal", journal) / FOLDER)

    def keep(answer: CaseAnswer) -> None:
        kept.problems += _write_certificates(answer, options.certificates or Path(), certified)
        finished(answer.run.cases[0])

    runs = run_tasks(tasks, place, kept, resume, Listener(progress, keep, counted))
    return join_runs(runs, started.isoformat(), time.perf_counter() - clock, tuple(kept.problems[:1]))


def _find_files(paths: Sequence[str | Path] | str | Path, expression: str) -> list[CaseFile]:
    """The case files under one path or several that an expression selects."""
    several = paths if isinstance(paths, tuple | list) else (paths,)
    return find_case_files(tuple(check_path("paths", one) for one in several), expression)


def _check_options(options: TaskOptions, against: str | Path | None, certificates: str | Path | None) -> TaskOptions:
    """Add the frozen reference and the folder of certificates to options, as far as they go together."""
    if against is None:
        return replace(options, certificates=None if certificates is None else check_path("certificates", certificates))
    if certificates or options != TaskOptions():
        without = "--prove-only, --selfcheck, --initial and --certificates"
        raise EquivError(f"--against runs without {without}.", fix="Leave them out.")
    return TaskOptions(against=check_path("against", against))


def _write_certificates(
    answer: CaseAnswer, folder: Path, certified: Callable[[Path, "Certificate"], None]
) -> list[str]:
    """Write the certificates of a case, whose name may be a path, and return what went wrong: the verdicts stand."""
    problems = []
    *parents, last = answer.name.split("/")
    for candidate, certificate in answer.certificates:
        path = folder.joinpath(*map(file_name, parents), f"{file_name(f'{last}-{candidate}')}.json")
        try:
            write_file(path, certificate.encoded, "Give another folder with --certificates.")
            certified(path, certificate)
        except EquivError as error:
            problems.append(str(error))
    return problems


def _name_by_path(files: list[CaseFile]) -> list[CaseFile]:
    """Name files of one name by their paths: results are known by the name of their case."""
    number = Counter(file.name for file in files)
    return [
        file if number[file.name] == 1 else CaseFile(file.path.with_suffix("").as_posix(), file.path) for file in files
    ]


def _frozen_case(files: list[CaseFile], bundle: Path) -> list[CaseFile]:
    """Find the case that was frozen; a single file is taken whatever its name."""
    if len(files) == 1:
        return files
    from equiv.running.worker import read_reference

    case = read_reference(bundle).case
    found = [file for file in files if file.name == case]
    if len(found) != 1:
        raise EquivError(f"none of {len(files)} cases is {case!r}, of which the bundle was made.", fix="Give its file.")
    return found
