"""The other interpreter's side: build, trace, run and freeze a model when it is asked to.

Started as `python -m equiv.infer.other_python.serve`. Requests come on standard input, as pickles of `(name of a method
of Model, its arguments)`; answers go to what standard output was. What a model prints goes to standard error.
"""

import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.backends.base import Port, PortSpec
from equiv.backends.build import build_unmapped, port_spec
from equiv.comparison.frozen.bundle import encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.frozen.sanity import refuse_senseless
from equiv.core.batch_spec import BatchTree
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.leaves import LeafSpec
from equiv.core.method_call import Methods
from equiv.errors import EquivError, error_summary
from equiv.infer.builders import LocatedBuilder, locate_builder
from equiv.infer.dataflow.port_graph import LeafCuts, PortGraph, read_port
from equiv.infer.dataflow.program_runs import LeafArrays
from equiv.infer.other_python.messages import Failure, GraphFacts, PortFacts, source_digest


class Model:
    """The model of one builder, and the graphs that were read of it."""

    located: LocatedBuilder
    port: Port
    request: PortSpec

    def __init__(self) -> None:
        self.graphs: list[PortGraph] = []

    def locate(self, given: str) -> LocatedBuilder:
        """Import the builder; what is returned has no function."""
        self.located = locate_builder(given, "left")
        return replace(self.located, builder=str, defined=None)

    def build(self, name: str, batch: Mapping[str, BatchTree], methods: Methods | None) -> PortFacts:
        """Build the port."""
        self.request, _ = port_spec(Case("", {}, batch, (), methods=methods))
        self.port = build_unmapped(name, self.located.builder, self.located.library, self.request)
        leaves = {key: LeafSpec(tuple(one.shape), str(one.dtype)) for key, one in self.port.leaves.items()}
        return PortFacts(self.port.library, leaves, dict(self.port.collections), self.port.has_modes)

    def read(self, train: bool) -> GraphFacts:
        """Trace it."""
        return self._tell(read_port(self.port, self.request, train))

    def cut(self, number: int, cutting: LeafCuts) -> GraphFacts:
        """Walk a program again with some leaves cut."""
        return self._tell(self.graphs[number].cut(cutting))

    def gradients(
        self, number: int, arrays: LeafArrays, places: Sequence[int], batch: Mapping[str, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Run a program's gradient."""
        return self.graphs[number].gradients(arrays, places, batch)

    def outputs(self, number: int, arrays: LeafArrays, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run a program."""
        return self.graphs[number].outputs(arrays, batch)

    def freeze(self, lesson: str, case: Case, name: str) -> bytes:
        """Freeze the model as the reference of a case, which has no models, and return the bundle."""
        loaded = LoadedCase("inferred", lesson, replace(case, models={name: self.located.builder}))
        frozen = freeze_reference(loaded)
        refuse_senseless(frozen, name, "Compare fewer steps: write the case with equiv map, and set its steps.")
        return encode_bundle(frozen)

    def _tell(self, graph: PortGraph) -> GraphFacts:
        self.graphs.append(graph)
        shapes = tuple(tuple(aval.shape) for aval in graph.program.jaxpr.out_avals)
        program = graph.program
        number = len(self.graphs) - 1
        return GraphFacts(number, program.name, program.inputs, program.outputs, shapes, graph.keys, graph.dataflow)


def serve() -> None:
    """Answer requests until there are no more; the first thing said is the digest of equiv's sources."""
    sys.setrecursionlimit(10_000)  # a dataflow is as deep as its program is long, and pickle goes into it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    model = Model()

    def say(answer: Any) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    say(source_digest())
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            say(getattr(model, name)(*arguments))
        except EquivError as error:
            say(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other side says what it was, and ends
            say(Failure(error_summary(error)))


if __name__ == "__main__":
    serve()
