"""Certify every case, then tamper: no certificate that claims what is not so may be accepted.

Run it with `python tests/tamper_run.py [TAMPERINGS] [FIRST_SEED]`; a shorter run is a test (`test_check.py`).

Every proof of every case under `cases` is certified, or the reason is told. Then the certificates of some of them are
changed at random places; programs too, and proved again. What the checker accepts has to be true by
an oracle that evaluates both programs (`tampering/oracle.py`).
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from helpers import CASES, loaded
from small_ports import small
from tampering.certificates import certify
from tampering.tamper import forge, tamper

TAMPERED = {
    "counter": 28,
    "custom_linear": 28,
    "stateful_linear": 20,
    "rnn_scan": 6,
    "scan_over_layers": 6,
    "mlp": 1,
    "batch_norm": 1,
}
"""Cases whose certificates are tampered with, a line, state, loops, rewrites: how many of a hundred tamperings."""

FORGED = 10
"""Of so many tamperings one is a changed program that is proved again."""


@dataclass
class Counts:
    """What became of all of them, and those that show a mistake of the checker."""

    results: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def note(self, label, said, result):
        self.results[result] += 1
        if result in ("wrong", "not judged"):
            self.wrong.append((label, said, result))
            print("WRONG", label, said, result, sep=" | ", flush=True)

    def say(self, label):
        print(f"{label}: {dict(self.results)}, {time.perf_counter() - self.started:.0f} s", flush=True)


def certify_cases(names):
    """Certify all proofs of both candidates; how many there are, how many are not, and why."""
    proved, left_out, kept = 0, Counter(), {}
    for name in names:
        for candidate in list(loaded(name).case.models)[1:]:
            found = certify(loaded(name), candidate)
            proved += found.proved
            left_out.update(found.left_out.values())
            print(f"{name} {candidate}: {found.proved - len(found.left_out)} of {found.proved} proofs", flush=True)
            kept[name] = found
    print(f"certified: {proved - left_out.total()} of {proved} proofs", *left_out.most_common(), sep="\n  ", flush=True)
    return {name: kept[name] for name in TAMPERED}


def main():
    """Certify, tamper; print what became of it, and whatever was accepted wrongly."""
    wanted, first = (int(text) for text in (*sys.argv[1:], *("10000", "0")[len(sys.argv) - 1 :]))
    originals = {"two small ports": small(), **certify_cases(sorted(path.stem for path in CASES.glob("*.py")))}
    counts = Counts()
    for name, original in originals.items():
        done, seed = 0, first
        while done < wanted * TAMPERED.get(name, 100 - sum(TAMPERED.values())) // 100:
            seed += 1
            said, result = (forge if seed % FORGED == 0 else tamper)(original, seed)
            if result != "nothing":
                done += 1
                counts.note(f"{name} {seed}", said, result)
        counts.say(name)
    print(f"{counts.results.total()} tampered certificates, {len(counts.wrong)} accepted wrongly or not judged")
    sys.exit(bool(counts.wrong))


if __name__ == "__main__":
    main()
