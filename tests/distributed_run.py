"""A process of `jax.distributed` that runs a case: `python tests/distributed_run.py PORT NUMBER CASE REPORTS`."""

import sys

import jax

from equiv.frontends.cli.main import main

if __name__ == "__main__":
    jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
    sys.argv = ["equiv", "run", sys.argv[3], "--no-isolate", "--reports", sys.argv[4]]
    main()
