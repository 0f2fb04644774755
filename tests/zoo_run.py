"""Run the models of `cases/models` to a verdict, and measure what that costs: `python tests/zoo_run.py [-k NAME] [..]`.

Of every pair of a reference and a candidate a layer table is inferred, which must have the rows that the case has. The
table says for each pair and check the grade; wall time over the floor, which is to trace, compile and run each distinct
program of both ports once, those that their users call among them; the same of processor time, which other work on the
machine changes less; processor time over that of equiv's own programs alone; and peak memory over that of one train
step of the reference, compiled and run as its user does. Every measurement is a process of its own, one after the
other, so that none shares what another has compiled. With `--prove-only` nothing is run, and nothing is divided. Exit
code 0: every pair is the same, and every inferred table is that of the case.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "cases" / "models"
RESULTS = ROOT / "reports" / "zoo"


def load(name: str) -> Any:
    """A loaded case of the zoo."""
    from equiv.core.case_files import CaseFile, load_case

    return load_case(CaseFile(name, MODELS / f"{name}.py"))


def of_pair(name: str, candidate: str) -> tuple[Any, Any]:
    """A loaded case with the reference and one candidate, and the name of the reference."""
    loaded = load(name)
    first = next(iter(loaded.case.models))
    models = {port: loaded.case.models[port] for port in (first, candidate)}
    return replace(loaded, case=replace(loaded.case, models=models)), first


def run_pair(name: str, candidate: str, prove_only: bool) -> dict[str, Any]:
    """Infer the layer table of a pair, compare it with that of the case, and run the pair with it."""
    from equiv import infer_layers
    from equiv.comparison.pipeline import RunOptions, run_case
    from equiv.infer.draft_case import draft_case
    from equiv.running.worker import GC_THRESHOLDS

    gc.set_threshold(*GC_THRESHOLDS)  # as where users run cases
    loaded, first = of_pair(name, candidate)
    case = loaded.case
    files = [f"{MODELS / name}.py:{port}" for port in case.models]
    found = infer_layers(*files, batch=case.batch, methods=case.methods, names=(first, candidate))
    inferred = rows_of(draft_case(found.draft, case).layers, case.models)
    odd = sorted(inferred ^ rows_of(case.layers, case.models))
    said = {"rows": len(inferred), "odd": [f"{kind} {' = '.join(scopes)}" for kind, *scopes in odd]}
    # Of one table the case's own names are used: what it says of known differences names their leaves.
    drafted = replace(draft_case(found.draft, case), models=case.models) if found.covered and odd else case
    started, spent = time.perf_counter(), time.process_time()
    result = run_case(replace(loaded, case=drafted), options=RunOptions(prove_only=prove_only))
    return {
        **said,
        "wall": time.perf_counter() - started,
        "processor": time.process_time() - spent,
        "verdict": result.verdicts.get(candidate, "error"),
        "problem": result.problem,
        "checks": {check.check: [check.grade, check.summary] for check in result.checks},
    }


def rows_of(layers: Any, ports: Any) -> set[tuple[str, ...]]:
    """What the rows of a layer table say: kind and places; the name of a row is free."""
    return {(row.kind, *(row.scopes[port] for port in ports)) for row in layers}


def run_floor(name: str, candidate: str, users: bool) -> dict[str, Any]:
    """Trace, compile and run each distinct program of a pair once; `users`: those that their users call, too."""
    from program_floor import run_programs

    case = of_pair(name, candidate)[0].case
    started, spent = time.perf_counter(), time.process_time()
    run_programs(case, users)
    return {"wall": time.perf_counter() - started, "processor": time.process_time() - spent}


def run_step(name: str, candidate: str) -> dict[str, Any]:
    """One train step of the reference as its user compiles and calls it, its optimizer's state made by its builder."""
    from equiv.bench.case_costs import make_bench
    from equiv.programs.built_case import build_case

    loaded, first = of_pair(name, candidate)
    bench = make_bench(build_case(loaded.case), {candidate: "only the reference is measured"})
    running = bench.written(first, "train step")[0].start()
    running.wait(running.call())
    return {}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "run": lambda name, port: run_pair(name, port, False),
    "prove": lambda name, port: run_pair(name, port, True),
    "floor": lambda name, port: run_floor(name, port, True),
    "own": lambda name, port: run_floor(name, port, False),
    "step": run_step,
}
"""What is measured, each in a process of its own."""


def measure(part: str, name: str, candidate: str) -> dict[str, Any]:
    """One part in a process of its own: what it says, its peak memory in bytes, or what went wrong."""
    command = [sys.executable, __file__, "--part", part, name, candidate]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def rows(name: str, prove_only: bool) -> Iterator[dict[str, Any]]:
    """The rows of the table of one model, one for each candidate."""
    _, *candidates = load(name).case.models
    for candidate in candidates:
        row = {"model": name, "candidate": candidate, **measure("prove" if prove_only else "run", name, candidate)}
        if not prove_only and "wall" in row:
            floor, own, step = (measure(part, name, candidate) for part in ("floor", "own", "step"))
            row |= {"floor": floor.get("wall"), "floor processor": floor.get("processor")}
            row |= {"own processor": own.get("processor"), "step peak": step.get("peak")}
            problems = (row["problem"], *(one.get("problem") for one in (floor, own, step)))
            row["problem"] = "; ".join(filter(None, problems))
        yield row


def markdown(found: list[dict[str, Any]]) -> str:
    """The table of all rows."""
    from equiv.core.checks import CHECK_NAMES

    costs = ["wall / floor", "processor / floor", "processor / own programs", "memory / step"]
    heads = ["model", "candidate", "verdict", *CHECK_NAMES, "rows inferred", *costs]
    lines = ["# Zoo", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in found:
        grades = [row.get("checks", {}).get(check, ["-"])[0] for check in CHECK_NAMES]
        table = f"{row.get('rows', 0)}" + (f", {len(row['odd'])} other than the case's" if row.get("odd") else "")
        ratios = [
            ratio(row.get(above), row.get(below), unit)
            for above, below, unit in (
                ("wall", "floor", "s"), ("processor", "floor processor", "s"),
                ("processor", "own processor", "s"), ("peak", "step peak", "MiB"),
            )
        ]  # fmt: skip
        cells = [row["model"], row["candidate"], row.get("verdict", "error"), *grades, table, *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    problems = [f"- {row['model']}, {row['candidate']}: {row['problem']}" for row in found if row.get("problem")]
    return "\n".join([*lines, *(["", *problems] if problems else []), ""])


def ratio(above: float | None, below: float | None, unit: str) -> str:
    """Two measurements and their ratio; a dash where one is missing."""
    if not above or not below:
        return "-"
    scale = 2**20 if unit == "MiB" else 1
    return f"{above / below:.2f} ({above / scale:.0f} / {below / scale:.0f} {unit})"


def main() -> None:
    """Run every model, and write the table after each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of models; default: all")
    parser.add_argument("--prove-only", action="store_true", help="only prove, and measure nothing")
    parser.add_argument("--part", choices=PARTS, help="one measurement, of a model and a candidate")
    given = parser.parse_args()
    if given.part:
        said = PARTS[given.part](*given.names)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print("\n" + json.dumps({**said, "peak": peak}))
        return
    names = given.names or sorted(path.stem for path in MODELS.glob("[a-z]*.py"))
    found: list[dict[str, Any]] = []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        for row in rows(name, given.prove_only):
            found.append(row)
            print(markdown([row]).splitlines()[4], *filter(None, [row.get("problem")]), *row.get("odd", []), flush=True)
            (RESULTS / "results.json").write_text(json.dumps(found, indent=1) + "\n")
            (RESULTS / "README.md").write_text(markdown(found))
    wanted = ("same", "inconclusive") if given.prove_only else ("same",)
    sys.exit(any(row.get("verdict") not in wanted or row.get("odd") or row.get("problem") for row in found))


if __name__ == "__main__":
    main()
