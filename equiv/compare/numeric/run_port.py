"""Case to what its ports give: build, map, trace, compile, run on the probes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv.backends.base import Port
from equiv.backends.build import guarded
from equiv.compare.numeric.probe_set import probes
from equiv.compare.observation import Observed, Sample
from equiv.core.leaves import LeafTable
from equiv.errors import PortError
from equiv.programs import compile_thread as background
from equiv.programs import key_reuse as randomness
from equiv.programs.built_case import Workshop
from equiv.programs.compiled import Executable, lower_programs, run
from equiv.programs.probes import Arrays, Probe
from equiv.programs.traced_port import Traced, lift_port


@dataclass(frozen=True)
class Prepared:
    """One port, ready to run: its compiled programs, native and, where needed and possible, lifted.

    Attributes:
        traced: the port.
        native: its programs in its own precision.
        lifted: in float64.
        unlifted: why there is no float64 run.
        reused: pairs of native draws that came out alike and must not.
        drawn: number of native draws looked at.
    """

    traced: Traced
    native: Executable
    lifted: Executable | None
    unlifted: str
    reused: tuple[str, ...]
    drawn: int

    @property
    def table(self) -> LeafTable:
        """Its leaf table."""
        return self.traced.table


def prepare(
    workshop: Workshop, traced: Traced, needed: frozenset[str] | None = None, quick: bool = False
) -> Callable[[], Prepared]:
    """Compile one port beside the main thread: natively all of it, lifted what is needed.

    A port that cannot be traced or compiled in float64 is judged by its native run alone, and its grade says so.

    Args:
        workshop: the case.
        traced: the port.
        needed: names of the programs that a float64 run is needed of; None: all.
        quick: the native run only double-checks proofs.

    Returns:
        What waits for it.

    Raises:
        PortError: it cannot be compiled in its own precision; at once or in the waiting.
    """
    table, steps, name = traced.table, workshop.case.steps, traced.port.backend
    probe = probes(workshop, table)[0]

    def begun(what: str, lower: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
        return partial(guarded, name, what, background.begin(guarded(name, what, lower)))

    native = begun("compiling", partial(lower_programs, traced.programs, table, steps, probe, quick))
    draws = begun("drawing", partial(randomness.lower_draws, traced.raw_step, traced.random))
    wide = "" if needed == frozenset() else lift_port(traced, needed)
    lifted: Callable[[], Executable] | str = wide if isinstance(wide, str) else ""
    if not isinstance(wide, str):
        try:
            lifted = begun("compiling in float64", partial(lower_programs, wide, table, steps, probe))
        except PortError as error:
            lifted = f"no float64 run: {error}"

    def ready() -> Prepared:
        try:
            run_wide, why = (None, lifted) if isinstance(lifted, str) else (lifted(), "")
        except PortError as error:
            run_wide, why = None, f"no float64 run: {error}"
        return Prepared(traced, native(), run_wide, why, *draws())

    return ready


def sample(prepared: Prepared, probe: Probe, reference: Sample | None = None, converted: Iterable[str] = ()) -> Sample:
    """Run a port on a probe: every program, then eval again with what training left.

    Args:
        prepared: the port.
        probe: the probe; `cold` takes the library's own fresh state.
        reference: what the reference gave on it, where leaves are converted.
        converted: leaves that differ by a known formula: the eval after training takes them from the reference.
    """
    own = prepared.traced.fresh if probe.name == "cold" else {}
    runs = [(prepared.native, reference.native if reference else None)]
    if prepared.lifted is not None:
        runs.append((prepared.lifted, reference.lifted if reference else None))
    outputs = []
    for executable, theirs in runs:
        taken = {} if theirs is None else {leaf: theirs[f"train: {leaf}"][-1] for leaf in converted}
        outputs.append(_run_twice(executable, probe, own, taken))
    return Sample(outputs[0], outputs[1] if len(outputs) > 1 else None)


def _run_once(executable: Executable, probe: Probe, own: Arrays) -> Arrays:
    return guarded(executable.programs.backend, "running", partial(run, executable, probe, own))


def _run_twice(executable: Executable, probe: Probe, own: Arrays, taken: Arrays) -> Arrays:
    table = executable.table
    if probe.name == "wide":
        return {
            name: value for name, value in _run_once(executable, probe, own).items() if not name.startswith("train: ")
        }
    outputs = _run_once(executable, probe, own)
    if not table.names("state") or executable.programs.step is None:
        return outputs
    trained = {name: outputs[f"train: {name}"][-1] for name in table.names()} | taken
    again = _run_once(executable, replace(probe, variables={}), trained)
    after = {f"after training, {name}": value for name, value in again.items() if name.startswith(("eval ", "call "))}
    kept = {name: value for name, value in outputs.items() if probe.name != "cold" or name.startswith("train: ")}
    return {**kept, **after}


def outline(workshop: Workshop, backend: str) -> Observed:
    """What is known of a port before it runs: its leaves."""
    return _outline(workshop.built[backend].port, workshop.built[backend].table)


def observe(prepared: Prepared, samples: Mapping[str, Sample]) -> Observed:
    """What checks are told of a port."""
    programs = prepared.native.programs
    every = [*programs.parts, *(part for part in (programs.step,) if part is not None)]
    return replace(
        _outline(prepared.traced.port, prepared.table),
        samples=samples,
        draws={program.name: program.draws for program in every},
        unlifted=prepared.unlifted,
        reused=prepared.reused,
        drawn=prepared.drawn,
    )


def _outline(port: Port, table: LeafTable) -> Observed:
    kept = {key: tuple(leaf.shape) for key, leaf in port.leaves.items() if port.collections[key] != "random"}
    return Observed(table, len(port.leaves) - len(kept), {}, {}, kept)
