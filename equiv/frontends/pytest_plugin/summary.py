"""Output of a pytest run: result files, and lines in the terminal summary."""

import pytest

from equiv.core.files import write_file
from equiv.core.results import RunResult
from equiv.core.results_json import encode_results
from equiv.errors import EquivError, error_summary
from equiv.report.cells import VERDICT_SIGNS
from equiv.report.terminal.run import VERDICT_COLOURS, device_and_versions


def write_outputs(result: RunResult, config: pytest.Config) -> tuple[list[str], bool]:
    """Write the files that the options name.

    Returns:
        Lines with what was written where, or why not; and whether everything was written.
    """
    written, failed = [], []
    for kind, given in (("json", config.option.equiv_json), ("html", config.option.equiv_html)):
        if not given:
            continue
        try:
            data = encode_results(result) if kind == "json" else _page(result)
            write_file(config.invocation_params.dir / given, data, f"Give another --equiv-{kind}.")
            written.append(f"{'results' if kind == 'json' else 'report'}: {given}")
        except EquivError as error:
            failed.append(f"equiv: {error}")
        except ModuleNotFoundError as missing:
            failed.append(f"equiv: --equiv-{kind} needs {missing.name}, which is not installed. Install it.")
        except Exception as error:  # noqa: BLE001 - the tests have run: their summary is still printed
            failed.append(
                f"equiv: --equiv-{kind} failed with {error_summary(error)}. Please report it with the results."
            )
    return [*written, *failed], not failed


def _page(result: RunResult) -> bytes:
    from equiv.report.html.page import render_page

    return render_page([result]).encode()


def environment_line() -> str:
    """Format device and versions in one line."""
    from equiv.backends.environment import describe_environment

    try:
        found = describe_environment()
    except EquivError as error:
        return f"equiv: {error}"
    return f"equiv: {device_and_versions(RunResult('same', '', found, (), '', 0.0)).rpartition(' · ')[0]}"


def write_summary(result: RunResult, lines: list[str], reporter: pytest.TerminalReporter) -> None:
    """Print verdict, environment, problems and files."""
    reporter.write_sep("=", "equiv")
    colour = {VERDICT_COLOURS[result.verdict].replace("magenta", "purple"): True}
    reporter.write_line(f"{VERDICT_SIGNS[result.verdict]} {result.headline}", bold=True, **colour)
    reporter.write_line(device_and_versions(result))
    for problem in result.problems:
        reporter.write_line(f"! {problem}")
    for line in lines:
        reporter.write_line(line)
