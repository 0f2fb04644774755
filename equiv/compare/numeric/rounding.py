"""Rounding."""

from collections.abc import Iterator, Mapping

import numpy as np

from equiv.compare.numeric.run_port import Prepared, _run_twice
from equiv.compare.observation import Noise, Sample
from equiv.programs import rounding_depth as depth
from equiv.programs.compiled import Executable
from equiv.programs.probes import Probe, nudged

NUDGES = 2
"""How often every input is moved by an ulp; the largest response counts."""


def noise_of(prepared: Prepared, given: Mapping[str, Sample], all_probes: list[Probe]) -> Noise:
    """How far the reference moves when each of its inputs moves by one ulp, in both precisions."""
    responses: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
    for index, probe in enumerate(all_probes):
        own = prepared.traced.fresh if probe.name == "cold" else {}
        # Once nothing is moved at all: where the same run twice gives two answers, that is noise too.
        for seed in range(1 if index else 0, NUDGES + 1):
            for lifted, executable in ((False, prepared.native), (True, prepared.lifted)):
                base = given[probe.name].lifted if lifted else given[probe.name].native
                if executable is None or base is None:
                    continue
                given_probe = probe if seed == 0 else nudged(probe, seed, "float64" if lifted else None)
                moved = _run_twice(executable, given_probe, own, {})
                known = responses[lifted].setdefault(probe.name, {})
                for place, value in _responses(base, moved):
                    known[place] = max(known.get(place, 0.0), value)
    return Noise(*responses, depths_of(prepared.native))


def _responses(base: Mapping[str, np.ndarray], moved: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for place, array in base.items():
        if "float" in str(array.dtype):
            with np.errstate(invalid="ignore"):  # inf - inf; what is not finite is left out below, and refused later
                apart = np.abs(moved[place].astype("float64") - array.astype("float64"))
            yield place, float(np.max(apart[np.isfinite(apart)], initial=0.0))


def depths_of(executable: Executable) -> dict[str, int]:
    """Output to rounded operations in a row; training counts every step, and what follows it counts it too."""
    programs = executable.programs
    found = {f"{part.name}: {name}": value for part in programs.parts for name, value in depth.depths(part).items()}
    if programs.step is None:
        return found
    per_step = depth.depths(programs.step)
    trained = max(per_step.values(), default=1) * executable.steps
    found |= {f"train: {name}": trained for name in per_step}
    return found | {f"after training, {name}": value + trained for name, value in list(found.items())}
