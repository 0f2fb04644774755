"""`equiv convert`: convert a trained checkpoint from one library to another."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from equiv.core.printable import escape_json, printable
from equiv.frontends.cli.base import echo, open_console, run_and_exit

if TYPE_CHECKING:
    from equiv.conversion.manifest import Manifest
    from equiv.conversion.plan.plan import Plan


PATH_TYPE = click.Path(path_type=Path)


@click.command("convert")
@click.argument("checkpoint", type=PATH_TYPE)
@click.option("--case", required=True, type=PATH_TYPE, help="Case file whose layer table maps the leaves.")
@click.option("--to", "target", required=True, help="Port of the new checkpoint: a key of the case's models, e.g. nnx.")
@click.option("--from", "origin", help="Port of the old checkpoint; default: recognised by its leaves.")
@click.option("-o", "--output", required=True, type=PATH_TYPE, help="The new checkpoint; the path must not exist.")
@click.option("--format", "file_format", help="npz, safetensors, msgpack or orbax; default: by the output's suffix.")
@click.option("--random", help="Random state of NNX: seed:N for new state, keep, or omit.")
@click.option(
    "--step", type=click.IntRange(0), help="Number of steps taken, if the old checkpoint does not contain it."
)
@click.option("--drop", multiple=True, help="Leave out leaves whose path contains this text; may be repeated.")
@click.option("--allow-pickle", is_flag=True, help="Read a pickle, with an unpickler that creates only arrays.")
@click.option("--allow-nonfinite", is_flag=True, help="Convert NaN and infinite values too.")
@click.option(
    "--verify", is_flag=True, help="Read the new checkpoint back, and compare both models run from the two checkpoints."
)
@click.option("--dry-run", is_flag=True, help="Print where each leaf would come from, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON instead of the summary.")
def convert_command(
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
    """Convert CHECKPOINT to another library: parameters, state, optimizer and step, with the mapping of a case."""

    options = {
        "case": case,
        "to": target,
        "origin": origin,
        "format": file_format,
        "random": random,
        "step": step,
        "drop": drop,
        "allow_pickle": allow_pickle,
        "allow_nonfinite": allow_nonfinite,
        "verify": verify,
        "dry_run": dry_run,
    }
    run_and_exit(lambda: _run_conversion(checkpoint, output, options, as_json))


def _run_conversion(checkpoint: Path, output: Path, options: Mapping[str, Any], as_json: bool) -> int:
    """Convert with a bar of the progress; `options` are those of `equiv.convert`."""
    columns = (TextColumn("{task.description:40}", markup=False), BarColumn(), DownloadColumn())
    console = open_console(stderr=True)
    plans: list[Plan] = []
    # What a case prints is not part of the results.
    with (
        redirect_stdout(sys.stderr),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("importing jax", total=None)
        from equiv.conversion.convert import size_of_plan
        from equiv.conversion.manifest import encode_manifest
        from equiv.conversion.verify import ConversionMismatch
        from equiv.core.verdict import verdict_exit_code
        from equiv.frontends.functions import convert

        def begin(plan: "Plan") -> Callable[[int], None]:
            plans.append(plan)
            bar.update(task, description="converting", total=size_of_plan(plan))
            return lambda size: bar.advance(task, size)

        try:
            manifest = convert(
                checkpoint,
                output,
                **options,
                progress=lambda text: bar.update(task, description=printable(text)),
                planned=begin,
            )
        except ConversionMismatch as error:
            echo(f"equiv: {error}", err=True)
            return verdict_exit_code(error.verdict)
        size = size_of_plan(plans[0])
    if manifest is None:
        _show_plan(plans[0], size, open_console())
    elif as_json:
        echo(escape_json(encode_manifest(manifest)), nl=False)
    else:
        _show_manifest(manifest, size, output, open_console())
    return 0


def _show_manifest(manifest: "Manifest", size: int, out: Path, console: Console) -> None:
    ours, theirs = manifest.source, manifest.target
    console.print(
        f"Converted: {len(manifest.leaves)} leaves, {decimal(size)}, from {ours.backend} ({ours.format}) to "
        f"{theirs.backend} ({theirs.format}): {escape(str(out))}",
        soft_wrap=True,
    )
    origins = Counter(leaf.origin for leaf in manifest.leaves)
    console.print(", ".join(f"{count} {origin}" for origin, count in origins.items()))
    _print_lines(console, [*manifest.notes, f"verified: {manifest.verified or 'not run; pass --verify'}"])


def _show_plan(plan: "Plan", size: int, console: Console) -> None:
    from equiv.conversion.formats.tree_paths import path_text
    from equiv.conversion.plan.optimizer import describe_optimizer_effects

    backends = plan.source.backend, plan.target.port.name
    console.print(
        f"Would convert {len(plan.planned_leaves)} leaves, {decimal(size)}, from {backends[0]} to {backends[1]}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("leaf", "shape", "is", "from", "rule"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("shape", "is"))
    for row in plan.planned_leaves:
        sources = " ".join(map(path_text, row.sources))
        table.add_row(*map(escape, (path_text(row.slot.path), str(row.slot.spec), row.origin, sources, row.rule)))
    console.print(table)
    _print_lines(console, [*plan.notes, *describe_optimizer_effects(plan.relations)])


def _print_lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(escape(line), soft_wrap=True)
