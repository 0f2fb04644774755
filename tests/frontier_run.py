"""Prove decoders of the sizes of frontier models: `python tests/frontier_run.py [NAME ..] [--unrolled]`.

Nothing of them is ever an array: models are built, traced and proved by their shapes, with their gradients and their
train step by AdamW, as `equiv run --prove-only` does. Printed are seconds, processor time and the largest memory; the
run fails where anything is not proved.
"""

import gc
import resource
import sys
import time

from frontier_models import SIZES, decoder

from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.frontends.cli.base import GC_THRESHOLDS


def main() -> None:
    """Prove and print."""
    gc.set_threshold(*GC_THRESHOLDS)
    names = [name for name in sys.argv[1:] if name != "--unrolled"]
    complete = True
    for name in names or SIZES:
        clock, used = time.perf_counter(), time.process_time()
        case = decoder(SIZES[name], scanned="--unrolled" not in sys.argv)
        result = run_case(LoadedCase(name, "", case), options=RunOptions(prove_only=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds = time.perf_counter() - clock, time.process_time() - used
        print(f"{name}: {seconds[0]:.1f} s, {seconds[1]:.1f} s of processor time, {memory:.2f} GiB", flush=True)
        for check in result.checks:
            print(f"    {check.check}: {check.grade}, {check.summary}", flush=True)
        complete &= set(result.verdicts.values()) == {"same"}
    sys.exit(not complete)


if __name__ == "__main__":
    main()
