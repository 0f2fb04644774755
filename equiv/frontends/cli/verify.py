"""`equiv verify`: check a certificate of `equiv run --certificates`, without the prover."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from equiv.frontends.cli.base import echo, run_and_exit

EXIT_FALSE = 1

EXIT_LESS = 3


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("case", type=click.Path(path_type=Path), required=False)
def verify_command(file: Path, case: Path | None) -> None:
    """Check the proofs in FILE step by step; with CASE, that they are of the programs of this case file.

    Exit code 0: all outputs are proved and all follows; 1: something does not follow, or is of other programs;
    2: FILE is no certificate; 3: all that it claims follows, but it claims nothing of some outputs.
    """
    run_and_exit(lambda: _verify(file, case))


def _verify(file: Path, case: Path | None) -> int:
    from equiv.certificates.verify import FalseCertificate, name_some, to_line, verify_file

    try:
        found = verify_file(file)
    except FalseCertificate as error:
        echo(f"\N{BALLOT X} {error}")
        return EXIT_FALSE
    other, missing = ("", found.missing) if case is None else _compare(found.data, case)
    if other:
        echo(f"\N{BALLOT X} {file}: the proofs follow, but not of {case}: {to_line(other)}.")
        return EXIT_FALSE
    first, *rest = found.describe()
    echo(f"{'!' if missing else CHECK} {first}")
    if missing and case is not None:
        echo(f"  the case has more, of which nothing is claimed: {to_line(name_some(missing))}")
    for line in rest:
        echo(f"  {line}")
    versions = to_line(f"equiv {found.data['about']['equiv']}, jax {found.data['about']['jax']}")
    traced = f"traced again from {case}: the same programs" if case else f"written by {versions}, not traced again"
    echo(f"  {traced}")
    return EXIT_LESS if missing else 0


CHECK = "\N{CHECK MARK}"


def _compare(data: Any, path: Path) -> tuple[str, list[str]]:
    with redirect_stdout(sys.stderr):
        from equiv.comparison.certify import compare_with_case
        from equiv.core.case_files import find_case_files, load_case

        (file,) = find_case_files((path,))
        return compare_with_case(data, load_case(file))
