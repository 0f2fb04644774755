"""The floor of a run: trace, compile and run each distinct program of a case once, which `zoo_run.py` and others time.

Nothing is compared, mapped or proved in it, so that it is the least that a comparison by running can cost.
"""

from collections.abc import Iterator

from equiv.backends.build import build_port, port_spec
from equiv.core.case import Case
from equiv.programs.built_case import build_case
from equiv.programs.compiled import lower_programs, run_executable
from equiv.programs.probes import make_probe
from equiv.programs.program import Programs
from equiv.programs.trace import Tracer
from equiv.programs.traced_port import trace_port, trace_programs
from equiv.programs.user_calls import compile_user_call, lower_user_calls


def run_programs(case: Case, users: bool, each_alone: bool = False) -> None:
    """Trace, compile and run every program of every port once.

    Args:
        case: the case, with its ports.
        users: the calls that users make, too, each by itself, as they compile it.
        each_alone: one executable for each program; else one for all programs of a port.
    """
    request, entries = port_spec(case)
    ports = [build_port(case, port, request) for port in case.models]
    has_modes = any(built.port.has_modes for built in ports)
    probe = make_probe("0", 1, ports[0].table, entries, case.steps)
    for built in ports:
        programs, _ = trace_programs(Tracer(built.port, built.table, request, False, has_modes))
        for part in separate(programs) if each_alone else [programs]:
            run_executable(lower_programs(part, built.table, case.steps, probe)(), probe)
    if users:
        built_case = build_case(case)
        for port in case.models:
            for call in lower_user_calls(trace_port(built_case, port), case.steps):
                for _ in call.stream(compile_user_call(call), probe):
                    pass


def separate(programs: Programs) -> Iterator[Programs]:
    """Yield every program by itself."""
    for part in programs.parts:
        yield Programs(programs.port, False, (part,), None, None)
    yield Programs(programs.port, False, (), programs.begin, programs.step)
