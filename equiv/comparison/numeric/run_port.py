"""Compile a traced port and run it on the probes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv.backends.base import Port
from equiv.backends.build import call_user_code
from equiv.comparison.numeric.held_outputs import HeldOutputs, Stream, hold_outputs
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS, Outputs, PortOutputs, Sample, TrainStepKind
from equiv.core.leaves import LeafTable
from equiv.core.output_name import TRAINING, ProgramName, trained_leaf
from equiv.errors import PortError
from equiv.programs import compile_thread as background
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import (
    COMPILED_EQUATIONS,
    Executable,
    NamedOutputs,
    by_operation,
    count_all_equations,
    join_parts,
    lower_programs,
    stream_outputs,
)
from equiv.programs.exercise import Observed, merge_observed
from equiv.programs.key_reuse import lower_keys
from equiv.programs.probes import NamedArrays, Probe
from equiv.programs.program import KeyReuse
from equiv.programs.traced_port import TracedPort, trace_port_float64

OutputsAndObserved = tuple[NamedOutputs, Observed]
"""Outputs of a run or of a part of one, and what it exercised."""


@dataclass(frozen=True)
class CompiledPort:
    """One port, ready to run: its compiled programs, native and, where needed and possible, in float64.

    Attributes:
        traced: the port.
        native: its programs in its own precision.
        float64: its programs in float64; None: there is no float64 run.
        why_no_float64: why there is no float64 run.
        reused: draws of one program that use one key, without replay.
        drawn: number of keys looked at.
    """

    traced: TracedPort
    native: Executable
    float64: Executable | None
    why_no_float64: str
    reused: tuple[KeyReuse, ...]
    drawn: int

    @property
    def table(self) -> LeafTable:
        """Its leaf table."""
        return self.traced.table


def compile_port(
    built_case: BuiltCase,
    traced: TracedPort,
    needed: frozenset[ProgramName] | None = None,
    quick: bool = False,
    settled: frozenset[ProgramName] = frozenset(),
    seldom: bool = False,
) -> Callable[[], CompiledPort]:
    """Start to compile one port in a background thread: its programs natively, and those needed in float64.

    A port that cannot be traced or compiled in float64 is judged by its native run alone, and its grade says so.

    Args:
        built_case: the case.
        traced: the port.
        needed: names of the programs that need a float64 run; None: all.
        quick: the native run only double-checks proofs.
        settled: names of the programs that need no run.
        seldom: a quick native run is made once or twice: large programs are not compiled for it.

    Returns:
        A function that waits for the compiled port.

    Raises:
        PortError: it cannot be compiled in its own precision; raised here or by the returned function.
    """
    table, steps, name = traced.table, built_case.case.steps, traced.port.name
    probe = make_probes(built_case, table)[0]

    def start(what: str, lower: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
        return partial(call_user_code, name, what, background.run_in_background(call_user_code(name, what, lower)))

    own = replace(traced.programs, parts=tuple(part for part in traced.programs.parts if part.name not in settled))
    native: Callable[[], Executable] = partial(by_operation, own, table, steps)
    if not (quick and seldom and count_all_equations(own) > COMPILED_EQUATIONS):
        native = start("compiling", partial(lower_programs, own, table, steps, probe, quick))
    keys = start("deriving keys", partial(lower_keys, traced.keyed, traced.random))
    programs = "" if needed == frozenset() else trace_port_float64(traced, needed)
    float64: Callable[[], Executable] | str = programs if isinstance(programs, str) else ""
    if not isinstance(programs, str):
        try:
            float64 = start("compiling in float64", partial(lower_programs, programs, table, steps, probe))
        except PortError as error:
            float64 = f"no float64 run: {error}"

    def wait() -> CompiledPort:
        try:
            executable, why = (None, float64) if isinstance(float64, str) else (float64(), "")
        except PortError as error:
            executable, why = None, f"no float64 run: {error}"
        return CompiledPort(traced, native(), executable, why, *keys())

    return wait


Hold = Callable[[Stream, bool], tuple[HeldOutputs, Observed]]
"""Runs a port, natively or in float64, and holds its outputs."""


def only_hold(stream: Stream, in_float64: bool) -> tuple[HeldOutputs, Observed]:
    """Nothing else is done with a run."""
    return hold_outputs(stream)


def run_on_probe(
    compiled: CompiledPort,
    probe: Probe,
    reference: Sample | None = None,
    converted: Iterable[str] = (),
    hold: Hold = only_hold,
) -> Sample:
    """Run a port on a probe: every program, then the eval programs again with the trained variables.

    Args:
        compiled: the port.
        probe: the probe; `FRESH_STATE` takes the library's own initial state.
        reference: the outputs of the reference on it, needed where leaves are converted.
        converted: leaves that differ by a known formula: the eval after training takes them from the reference.
        hold: runs it where its training is large, in float64 first.
    """
    own = compiled.traced.fresh if probe.name == FRESH_STATE else {}
    runs = [(compiled.native, reference.native if reference else None)]
    if compiled.float64 is not None:
        runs.insert(0, (compiled.float64, reference.float64 if reference else None))
    outputs, exercised = list[Outputs](), list[Observed]()
    for executable, theirs in runs:
        taken = {} if theirs is None else {leaf: theirs[trained_leaf(leaf)][-1] for leaf in converted}
        if executable.training is None:
            found, observed = run_then_eval(executable, probe, own, taken)
        else:
            stream = partial(stream_then_eval, executable, probe, own, taken)
            found, observed = hold(stream, executable is compiled.float64)
        outputs.append(found)
        exercised.append(observed)
    return Sample(outputs[-1], outputs[0] if len(outputs) > 1 else None, exercised[-1])


def run_then_eval(executable: Executable, probe: Probe, own: NamedArrays, taken: NamedArrays) -> OutputsAndObserved:
    """Run all programs, then eval with the trained variables and `taken`, as `after training, ...`.

    Returns:
        Their outputs, and what the first run exercised.
    """
    parts = list(stream_then_eval(executable, probe, own, taken))
    return join_parts([outputs for outputs, _ in parts]), merge_observed([observed for _, observed in parts])


def stream_then_eval(
    executable: Executable, probe: Probe, own: NamedArrays, taken: NamedArrays
) -> Iterator[OutputsAndObserved]:
    """Yield the same outputs in parts: where training is large the calls, each step, and the eval after them."""
    table = executable.table
    evaluated = probe.name != LARGE_INPUTS and bool(table.names("state")) and executable.programs.step is not None
    trained: NamedArrays = {}
    for outputs, observed in _stream(executable, probe, own):
        if probe.name == LARGE_INPUTS:  # nothing is trained on them
            outputs = {name: array for name, array in outputs.items() if name.program != TRAINING}
        if evaluated:
            trained |= {name: outputs[one][-1] for name in table.names() if (one := trained_leaf(name)) in outputs}
        if evaluated and probe.name == FRESH_STATE:
            outputs = {name: array for name, array in outputs.items() if name.program == TRAINING}
        yield outputs, observed
        del outputs  # before the next part is computed
    if evaluated:
        again, _ = next(_stream(executable, replace(probe, variables={}), trained | taken))
        later = {replace(name, after_training=True): value for name, value in again.items()}
        yield {name: value for name, value in later.items() if name.program.is_evaluation}, {}


def _stream(executable: Executable, probe: Probe, own: NamedArrays) -> Iterator[OutputsAndObserved]:
    return stream_user_code(executable.programs.port, "running", stream_outputs(executable, probe, own))


def stream_user_code(port: str, action: str, parts: Iterator[OutputsAndObserved]) -> Iterator[OutputsAndObserved]:
    """Yield the parts of a run; what raises on the way becomes one message that names the port."""
    while True:
        part = call_user_code(port, action, lambda: next(parts, None))
        if part is None:
            return
        yield part
        del part  # before the next one is computed


def describe_port(built_case: BuiltCase, backend: str) -> PortOutputs:
    """Describe a port that has not run: its leaves, without outputs."""
    return _port_leaves(built_case.built[backend].port, built_case.built[backend].table)


def collect_outputs(compiled: CompiledPort, samples: Mapping[str, Sample]) -> PortOutputs:
    """Collect the outputs of a port and all else that checks read."""
    programs = compiled.traced.programs  # with those that need no run
    every = [*programs.parts, *(part for part in (programs.step,) if part is not None)]
    return replace(
        _port_leaves(compiled.traced.port, compiled.table),
        samples=samples,
        draws={program.name: program.draws for program in every},
        why_no_float64=compiled.why_no_float64,
        reused=compiled.reused,
        drawn=compiled.drawn,
        no_gradients=programs.no_gradients,
    )


def _port_leaves(port: Port, table: LeafTable) -> PortOutputs:
    kept = {key: tuple(leaf.shape) for key, leaf in port.leaves.items() if port.collections[key] != "random"}
    return PortOutputs(table, len(port.leaves) - len(kept), {}, {}, kept, train_step=train_step_kind(port))


def train_step_kind(port: Port) -> TrainStepKind:
    """Whose train step a port is trained with."""
    return "left out" if port.step_left_out else "default" if port.default_step else "own"
