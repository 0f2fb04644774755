"""This interpreter's side: start another one, ask it, and take what it knows of its model for a port."""

import os
import pickle
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np

from equiv.comparison.frozen.bundle import FrozenReference, decode_bundle
from equiv.core.case import Case
from equiv.core.leaves import LeafSpec
from equiv.errors import EquivError
from equiv.infer.builders import LocatedBuilder
from equiv.infer.dataflow.port_graph import LeafCuts, PortElsewhere, PortGraph
from equiv.infer.dataflow.program_runs import LeafArrays
from equiv.infer.other_python.messages import Failure, GraphFacts, PortFacts, source_digest
from equiv.programs.program import Program

ENDS = 5.0
"""Seconds that an interpreter has to end by itself after something that is no answer."""

STRANGERS = ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that say where this Python has its packages."""


class OtherPython:
    """Another interpreter, which has one model.

    Attributes:
        python: its path, as given.
    """

    def __init__(self, python: str, process: subprocess.Popen[bytes], said: Any) -> None:
        self.python, self._process, self._said = python, process, said

    def locate(self, given: str) -> LocatedBuilder:
        """Import a builder there.

        Raises:
            EquivError: it cannot be imported or called there, or the interpreter has ended.
        """
        return replace(self.ask("locate", given), builder=partial(_refuse, self.python), elsewhere=self._build)

    def freeze(self, lesson: str, case: Case, port: str) -> FrozenReference:
        """Freeze the model there, as the reference of a case without models.

        Raises:
            EquivError: it cannot be run there, or the interpreter has ended.
        """
        return decode_bundle(self.ask("freeze", lesson, case, port), self.python)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have a method of `equiv.infer.other_python.serve.Model` called there.

        Raises:
            EquivError: what it raised; or the interpreter has ended.
        """
        assert self._process.stdin is not None, "it is a pipe"
        try:
            pickle.dump((name, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # that it has ended is said below
        return self.answer()

    def answer(self) -> Any:
        """Take the next answer; errors as of `ask`."""
        assert self._process.stdout is not None, "it is a pipe"
        try:
            answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError, AttributeError, ImportError) as error:
            raise self._ended() from error
        if isinstance(answer, EquivError):
            raise EquivError(f"{self.python}: {answer.problem}", fix=answer.fix, port=answer.port, leaf=answer.leaf)
        if isinstance(answer, Failure):
            raise EquivError(f"{self.python}: equiv failed there with {answer.summary}.", fix="Please report it.")
        return answer

    def _ended(self) -> EquivError:
        """Why nothing came: by what it said last."""
        try:
            code = self._process.wait(timeout=ENDS)  # what says no answer is mostly about to end, with a reason
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {code}"
        install = f"{self.python} -m pip install equiv"
        if missing := re.search(r"No module named '?([\w.]+)", last):
            if missing[1] == "equiv":
                return EquivError(f"{self.python}: equiv is not installed there.", fix=f"Run {install}.")
            if missing[1].startswith("equiv."):
                return EquivError(
                    f"{self.python}: the equiv there is an older one, without {missing[1]}.",
                    fix=f"Install the one that is used here: {install}.",
                )
            return EquivError(f"{self.python}: {missing[1]} is not installed there.", fix=f"Run {install}.")
        return EquivError(
            f"{self.python}: it ended with {last}.",
            fix=f"equiv freezes with Python 3.11, jax 0.4.35 and flax 0.8 or newer: run {install} there.",
        )

    def _build(self, name: str, case: Case) -> PortElsewhere:
        facts: PortFacts = self.ask("build", name, case.inputs, case.methods)
        refuse = partial(_refuse, self.python)
        port = PortElsewhere(
            name=name,
            library=facts.library,
            leaves={key: _struct(one) for key, one in facts.leaves.items()},
            collections=facts.collections,
            has_modes=facts.has_modes,
            apply=refuse,
            init_training=refuse,
            step=refuse,
            init=refuse,
            default_step=True,
            read=lambda train: GraphElsewhere.of(self, port, self.ask("read", train)),
        )
        return port


@dataclass(frozen=True)
class GraphElsewhere(PortGraph):
    """The graph of a port whose programs run in another interpreter.

    Attributes:
        other: the interpreter.
        number: by which it knows the graph.
    """

    other: OtherPython
    number: int

    @classmethod
    def of(cls, other: OtherPython, port: PortElsewhere, facts: GraphFacts) -> "GraphElsewhere":
        """The graph that facts are of."""
        program = Program(facts.program, _Outputs(facts.shapes), facts.inputs, facts.outputs, ())
        return cls(port, program, facts.keys, facts.dataflow, other, facts.number)

    def cut(self, cutting: LeafCuts) -> "PortGraph":
        """Have the program walked again with some leaves cut."""
        if not cutting:
            return self
        assert isinstance(self.port, PortElsewhere), "it is read of one"
        return self.of(self.other, self.port, self.other.ask("cut", self.number, dict(cutting)))

    def gradients(
        self, arrays: LeafArrays, places: Sequence[int], batch: Mapping[str, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Have the gradients of some leaves computed."""
        return self.other.ask("gradients", self.number, dict(arrays), list(places), dict(batch))

    def outputs(self, arrays: LeafArrays, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Have the outputs computed."""
        return self.other.ask("outputs", self.number, dict(arrays), dict(batch))


class _Outputs:
    """What is known here of a jaxpr: the shapes of its outputs."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.out_avals = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]


def _struct(spec: LeafSpec) -> jax.ShapeDtypeStruct:
    key = spec.dtype.startswith("key<")
    return jax.ShapeDtypeStruct(spec.shape, jax.eval_shape(lambda: jax.random.key(0)).dtype if key else spec.dtype)


def _refuse(python: str, *_: Any, **__: Any) -> NoReturn:
    raise EquivError(f"{python}: its model is built there only.", fix="Please report it.")


@contextmanager
def start_python(python: str) -> Iterator[OtherPython]:
    """Start another interpreter, which ends with the context.

    Raises:
        EquivError: there is none, equiv is not installed there, or it is another version.
    """
    program = shutil.which(python)
    if program is None:
        fix = "Give the python of the other environment: OLD/bin/python."
        raise EquivError(f"{python}: there is no such program.", fix=fix)
    variables = {name: value for name, value in os.environ.items() if name not in STRANGERS}
    command = [program, "-m", "equiv.infer.other_python.serve"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, env=variables)
        try:
            other = OtherPython(python, process, said)
            if other.answer() != source_digest():
                raise EquivError(
                    f"{python}: the equiv there is not the one that is used here.",
                    fix="Install the same version in both environments.",
                )
            yield other
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # what it was still to be sent
                process.communicate()
