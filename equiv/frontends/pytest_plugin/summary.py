"""What a run leaves: the files that were asked for, and a few lines below pytest's own."""

import pytest

from equiv.core.results import RunResult
from equiv.core.results_json import encode
from equiv.errors import EquivError, told
from equiv.frontends.cli.base import write
from equiv.report.cells import VERDICT_SIGNS
from equiv.report.terminal.run import COLOURS, surroundings


def write_outputs(result: RunResult, config: pytest.Config) -> tuple[list[str], bool]:
    """Write what the options ask for.

    Returns:
        Lines that say what was written where, or why not; and whether all was written.
    """
    said, failed = [], []
    for kind, given in (("json", config.option.equiv_json), ("html", config.option.equiv_html)):
        if not given:
            continue
        try:
            data = encode(result) if kind == "json" else _page(result)
            write(config.invocation_params.dir / given, data, f"Give another --equiv-{kind}.")
            said.append(f"{'results' if kind == 'json' else 'report'}: {given}")
        except EquivError as error:
            failed.append(f"equiv: {error}")
        except ModuleNotFoundError as missing:
            failed.append(f"equiv: --equiv-{kind} needs {missing.name}, which is not installed here. Install it.")
        except Exception as error:  # noqa: BLE001 - the tests have been run: their results are still to be shown
            failed.append(f"equiv: --equiv-{kind} failed with {told(error)}. Please report it with the results.")
    return [*said, *failed], not failed


def _page(result: RunResult) -> bytes:
    from equiv.report.html.page import page

    return page([result]).encode()


def environment_line() -> str:
    """Device and versions, in one line."""
    from equiv.backends.environment import environment

    try:
        found = environment()
    except EquivError as error:
        return f"equiv: {error}"
    return f"equiv: {surroundings(RunResult('same', '', found, (), '', 0.0)).rpartition(' · ')[0]}"


def summary(result: RunResult, said: list[str], reporter: pytest.TerminalReporter) -> None:
    """Verdict, environment, problems, files."""
    reporter.write_sep("=", "equiv")
    colour = {COLOURS[result.verdict].replace("magenta", "purple"): True}
    reporter.write_line(f"{VERDICT_SIGNS[result.verdict]} {result.headline}", bold=True, **colour)
    reporter.write_line(surroundings(result))
    for problem in result.problems:
        reporter.write_line(f"! {problem}")
    for line in said:
        reporter.write_line(line)
