"""What a run leaves: the files that were asked for, and a few lines below pytest's own."""

import pytest

from equiv.commands.base import write
from equiv.errors import EquivError
from equiv.report.cells import VERDICT_SIGNS
from equiv.report.terminal import COLOURS, surroundings
from equiv.results import RunResult, encode


def write_outputs(result: RunResult, config: pytest.Config) -> tuple[list[str], bool]:
    """Write what the options ask for.

    Returns:
        Lines that say what was written where, or why not; and whether all was written.
    """
    said, all_written = [], True
    for option, given in (("json", config.option.equiv_json), ("html", config.option.equiv_html)):
        if not given:
            continue
        path = config.invocation_params.dir / given
        try:
            write(path, encode(result) if option == "json" else _page(result), f"Give another --equiv-{option}.")
            said.append(f"{'results' if option == 'json' else 'report'}: {given}")
        except EquivError as error:
            said.append(f"equiv: {error}")
            all_written = False
    return said, all_written


def _page(result: RunResult) -> bytes:
    from equiv.report.page import page

    return page([result]).encode()


def environment_line() -> str:
    """Device and versions, in one line."""
    from equiv.environment import environment

    try:
        found = environment()
    except EquivError as error:
        return f"equiv: {error}"
    return f"equiv: {surroundings(RunResult('same', '', found, (), '', 0.0)).rpartition(' · ')[0]}"


def summary(result: RunResult, said: list[str], reporter: pytest.TerminalReporter) -> None:
    """Verdict, environment, problems, files."""
    reporter.section("equiv")
    colour = {COLOURS[result.verdict].replace("magenta", "purple"): True}
    reporter.write_line(f"{VERDICT_SIGNS[result.verdict]} {result.headline}", bold=True, **colour)
    reporter.write_line(surroundings(result))
    for problem in result.problems:
        reporter.write_line(f"! {problem}")
    for line in said:
        reporter.write_line(line)
