"""The floor of a run, timed by `bench_run.py`: trace, compile and run each distinct program of cases once.

Run it with `python tests/benchmarks/run_floor.py fused|users|separate NAME...`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from equiv.backends.build import build_port, port_spec
from equiv.core.case_files import CaseFile, load_case
from equiv.programs.built_case import build_case
from equiv.programs.compiled import lower_programs, run_executable
from equiv.programs.probes import make_probe
from equiv.programs.program import Programs
from equiv.programs.trace import Tracer
from equiv.programs.traced_port import trace_port, trace_programs
from equiv.programs.user_calls import compile_user_call, lower_user_calls

CASES = Path(__file__).parents[2] / "cases"


def separate(programs: Programs) -> Iterator[Programs]:
    """Yield every program by itself."""
    for part in programs.parts:
        yield Programs(programs.port, False, (part,), None, None)
    yield Programs(programs.port, False, (), programs.begin, programs.step)


def run_case(name: str, how: str) -> None:
    """Trace, compile and run the programs of every port of a case once; `users`: those that users call too."""
    case = load_case(CaseFile(name, CASES / f"{name}.py")).case
    request, entries = port_spec(case)
    ports = [build_port(case, port, request) for port in case.models]
    has_modes = any(built.port.has_modes for built in ports)
    probe = make_probe("0", 1, ports[0].table, entries, case.steps)
    for built in ports:
        programs, _ = trace_programs(Tracer(built.port, built.table, request, False, has_modes))
        for part in separate(programs) if how == "separate" else [programs]:
            run_executable(lower_programs(part, built.table, case.steps, probe)(), probe)
    if how == "users":
        built_case = build_case(case)
        for port in case.models:
            for call in lower_user_calls(trace_port(built_case, port), case.steps):
                for _ in call.stream(compile_user_call(call), probe):
                    pass


if __name__ == "__main__":
    for case_name in sys.argv[2:]:
        run_case(case_name, sys.argv[1])
