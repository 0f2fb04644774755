"""What was freed goes back to the machine, and not after every train step."""

import sys

import numpy as np
import pytest

from equiv.programs import freed_memory
from equiv.programs.freed_memory import SLACK, read_resident_memory, return_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries return it themselves")
def test_memory_is_returned_where_it_has_grown(monkeypatch):
    """A run whose memory grows by more than the slack gives it back each time, one that does not never again."""
    resident = iter([10, 8, 8 + SLACK, 9 + SLACK, 20, 20, 21 + SLACK, 30])
    trimmed: list[bool] = []
    monkeypatch.setattr(freed_memory, "_after_last", {})
    monkeypatch.setattr(freed_memory, "read_resident_memory", lambda: next(resident))
    monkeypatch.setattr(freed_memory, "trim_heap", lambda: trimmed.append(True) or True)
    counts = []
    for _ in range(5):
        return_freed_memory()
        counts.append(len(trimmed))
    assert counts == [1, 1, 2, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_resident_memory_is_that_of_this_process():
    before = read_resident_memory()
    held = np.ones(2**24)
    assert held.nbytes // 2 < read_resident_memory() - before < 4 * held.nbytes
