"""`equiv convert`: a trained checkpoint from one library to another."""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from equiv.core.case_files import LoadedCase, find, load
from equiv.errors import EquivError
from equiv.frontends.cli.base import guard, open_console

if TYPE_CHECKING:
    from equiv.convert.conversion import Request
    from equiv.convert.manifest import Manifest
    from equiv.convert.plan.plan import Plan


PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("--case", required=True, type=PATH, help="Case file whose layer table maps the leaves.")
@click.option("--to", "target", required=True, help="Library of the new checkpoint: haiku, linen or nnx.")
@click.option("--from", "origin", help="Library of the old one; default: the one whose leaves it has.")
@click.option("-o", "--output", required=True, type=PATH, help="The new checkpoint; nothing may be there.")
@click.option("--format", "file_format", help="npz, safetensors, msgpack or orbax; default: by the output's suffix.")
@click.option("--random", help="Random state of NNX: seed:N to begin it anew, keep, or omit.")
@click.option("--step", type=click.IntRange(0), help="Steps taken, where the old checkpoint does not say.")
@click.option("--drop", multiple=True, help="Leave out the leaves with this in their path; may be repeated.")
@click.option("--allow-pickle", is_flag=True, help="Read a pickle, with an unpickler that makes nothing but arrays.")
@click.option("--allow-nonfinite", is_flag=True, help="Take over NaN and infinite values.")
@click.option("--verify", is_flag=True, help="Read it back, and run both models from the two checkpoints.")
@click.option("--dry-run", is_flag=True, help="Say what each leaf would be made of, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON instead of the summary.")
def convert(
    checkpoint: Path,
    case: Path,
    target: str,
    origin: str | None,
    output: Path,
    file_format: str | None,
    random: str | None,
    step: int | None,
    drop: tuple[str, ...],
    allow_pickle: bool,
    allow_nonfinite: bool,
    verify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take CHECKPOINT to another library: parameters, state, optimizer and step, through the mapping of a case."""

    def request() -> "Request":
        from equiv.convert.conversion import Request
        from equiv.convert.plan.plan import Choices
        from equiv.convert.plan.random_state import chosen

        return Request(
            checkpoint,
            _loaded(case),
            target,
            output,
            origin=origin,
            format=file_format,
            choices=Choices(chosen(random) if random else None, step),
            drop=drop,
            allow_pickle=allow_pickle,
            nonfinite=allow_nonfinite,
            verify=verify,
        )

    guard(lambda: _convert(request, dry_run, as_json))


def _loaded(case: Path) -> LoadedCase:
    files = find((case,))
    if len(files) != 1:
        raise EquivError(f"{case}: {len(files)} cases are there. Give the one file with --case.")
    return load(files[0])


def _convert(request: "Callable[[], Request]", dry: bool, as_json: bool) -> int:
    columns = (TextColumn("{task.description:40}"), BarColumn(), DownloadColumn())
    console = open_console(stderr=True)
    # What a case prints is no result.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=None)
        from equiv.convert import conversion
        from equiv.convert.manifest import encode
        from equiv.convert.verify import NotSame
        from equiv.core.verdict import exit_code

        def begin(plan: "Plan") -> Callable[[int], None]:
            bar.update(task, description="converting", total=conversion.size_of_plan(plan))
            return lambda size: bar.advance(task, size)

        try:
            asked = request()
            plan, manifest = conversion.convert(asked, lambda text: bar.update(task, description=text), begin, dry)
        except NotSame as error:
            click.echo(f"equiv: {error}", err=True)
            return exit_code(error.verdict)
        size = conversion.size_of_plan(plan)
    if manifest is None:
        _show_plan(plan, size, open_console())
    elif as_json:
        click.echo(encode(manifest), nl=False)
    else:
        _show(manifest, size, asked.out, open_console())
    return 0


def _show(manifest: "Manifest", size: int, out: Path, console: Console) -> None:
    ours, theirs = manifest.source, manifest.target
    console.print(
        f"Converted: {len(manifest.leaves)} leaves, {decimal(size)}, from {ours.backend} ({ours.format}) to "
        f"{theirs.backend} ({theirs.format}): {escape(str(out))}",
        soft_wrap=True,
    )
    origins = Counter(leaf.origin for leaf in manifest.leaves)
    console.print(", ".join(f"{count} {origin}" for origin, count in origins.items()))
    _say(console, [*manifest.notes, f"verified: {manifest.verified or 'not run; say --verify'}"])


def _show_plan(plan: "Plan", size: int, console: Console) -> None:
    from equiv.convert.formats.tree_paths import shown
    from equiv.convert.plan.optimizer import forecast

    backends = plan.source.backend, plan.target.port.backend
    console.print(f"Would convert {len(plan.rows)} leaves, {decimal(size)}, from {backends[0]} to {backends[1]}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("leaf", "shape", "is", "from", "rule"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("shape", "is"))
    for row in plan.rows:
        sources = " ".join(map(shown, row.sources))
        table.add_row(*map(escape, (shown(row.slot.path), str(row.slot.spec), row.origin, sources, row.rule)))
    console.print(table)
    _say(console, [*plan.notes, *forecast(plan.relations)])


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(escape(line), soft_wrap=True)
