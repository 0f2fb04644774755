"""Runs that measure what each port's own operations round: no more than what is refuted asks for.

A run with every operation moved costs a hundred times a compiled one. So only the probes, the precisions and the
programs are run in which something is refuted, and first with few runs. What these move an output by, without the
allowance for what few runs may have missed, is a budget that more runs only widen: what it explains needs no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from equiv.comparison.numeric.own_rounding import FEW_NUDGES, OPERATION_NUDGES, Doubt, nudge_port
from equiv.comparison.numeric.rounding import Parts, ProbeTally, StreamProbe, run_in_parts, tally_runs
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import Outputs, RoundingNoise, Sample
from equiv.core.budget import Responses
from equiv.core.output_name import OutputName, ProgramName
from equiv.errors import EquivError
from equiv.programs.compiled import Executable
from equiv.programs.probes import Probe

OwnRounding = tuple[RoundingNoise | None, RoundingNoise | None]
"""How far the reference and the candidate move; None: of that port nothing is known."""


StreamPort = Callable[[CompiledPort, Executable, Probe], Parts]


@dataclass(frozen=True)
class Side:
    """One of the two ports that are compared.

    Attributes:
        compiled: the port; None: it is frozen.
        probes: on which it runs; none: it is only what the other one is compared with.
        samples: probe name to its outputs as it is, where one that an ulp takes out of the numbers has a response
            without a bound.
    """

    compiled: CompiledPort | None
    probes: Sequence[Probe]
    samples: Mapping[str, Sample]


@dataclass
class _Moved:
    """Runs of some programs of one port with every operation moved, on one probe in one precision.

    Attributes:
        run: runs them on a probe, part by part.
        base: the parts of the run on the probe as it is: known, or run again where they are large.
        probe: the probe.
        in_float64: the precision.
        tally: what is known.
        runs: number of moved runs.
    """

    run: StreamProbe
    base: Callable[[], Parts]
    probe: Probe
    in_float64: bool
    tally: ProbeTally
    runs: int = 0

    def add_runs(self, most: int) -> dict[OutputName, Responses]:
        """Move until there are so many runs; what the outputs move by: as it is, unless all runs are made.

        Raises:
            PortError: an operation cannot be run alone.
        """
        tally_runs(self.tally, self.run, self.base, self.probe, range(self.runs + 1, most + 1), self.in_float64)
        self.runs = most
        return self.tally.responses if most >= OPERATION_NUDGES else self.tally.observed


class OwnRuns:
    """The runs that were made of two ports with every operation moved, and what is known from them."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        known: OwnRounding = (None, None),
        stream: StreamPort = run_in_parts,
    ) -> None:
        """Begin.

        Args:
            sides: the reference and the candidate.
            known: what is known already.
            stream: runs one executable of a port, part by part.
        """
        self.sides, self.known, self._stream = sides, known, stream
        self._moved: tuple[dict[Doubt, list[_Moved]], ...] = ({}, {})
        self._tried: dict[tuple[Doubt, ProgramName], int] = {}

    def measure(self, doubts: Mapping[Doubt, frozenset[ProgramName]]) -> bool:
        """Make more runs for what is in doubt: few at first, then all.

        Returns:
            Whether there were more to make.
        """
        made = False
        for doubt, names in doubts.items():
            tried = {name: self._tried.get((doubt, name), 0) for name in names}
            if all(runs >= OPERATION_NUDGES for runs in tried.values()):
                continue
            most = FEW_NUDGES if not all(tried.values()) else OPERATION_NUDGES
            self.known = self._measure_side(0, doubt, names, most), self._measure_side(1, doubt, names, most)
            self._tried |= {(doubt, name): max(most, runs) for name, runs in tried.items()}
            made = True
        return made

    def _measure_side(
        self, number: int, doubt: Doubt, names: frozenset[ProgramName], most: int
    ) -> RoundingNoise | None:
        """What is known of one port after more runs; where its operations cannot be run, what was known before."""
        known, compiled = self.known[number], self.sides[number].compiled
        if compiled is None or not self.sides[number].probes:
            return known
        started = self._moved[number].setdefault(doubt, [])
        try:
            if most == FEW_NUDGES:
                started.append(self._start(number, compiled, doubt, names))
            for moved in started:
                if moved.runs < most:
                    known = _add_known(known, doubt, moved.add_runs(most), most < OPERATION_NUDGES)
        except EquivError:
            started.clear()
        return known

    def _start(self, number: int, compiled: CompiledPort, doubt: Doubt, names: frozenset[ProgramName]) -> _Moved:
        side, other = self.sides[number], self.sides[1 - number].compiled
        port = nudge_port(compiled, names, other, doubt.in_float64)
        probe = next(one for one in side.probes if one.name == doubt.probe)
        executable = port.float64 if doubt.in_float64 else port.native
        assert executable is not None, "only what has run in float64 is doubted there"
        run: StreamProbe = partial(self._stream, port, executable)
        base: Callable[[], Parts] = partial(run, probe)
        if executable.training is None:
            base = partial(list[Outputs], list(base()))
        actual = side.samples[doubt.probe].native if doubt.probe in side.samples and not doubt.in_float64 else {}
        return _Moved(run, base, probe, doubt.in_float64, ProbeTally(actual))


def _add_known(
    known: RoundingNoise | None, doubt: Doubt, found: Mapping[OutputName, Responses], is_few: bool
) -> RoundingNoise:
    """Add what outputs move by on one probe in one precision; that of few runs does not replace what is known."""
    known = known or RoundingNoise({}, {}, {})
    before = known.float64 if doubt.in_float64 else known.native
    here = before.get(doubt.probe, {})
    keys = frozenset((doubt.probe, name, doubt.in_float64) for name in found)
    if is_few:
        few = known.few | (keys - frozenset((doubt.probe, name, doubt.in_float64) for name in here))
        changed = {**before, doubt.probe: {**found, **here}}
    else:
        few, changed = known.few - keys, {**before, doubt.probe: {**here, **found}}
    return replace(known, float64=changed, few=few) if doubt.in_float64 else replace(known, native=changed, few=few)
