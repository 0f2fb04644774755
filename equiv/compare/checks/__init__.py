"""One file per question that is asked of a port. Checks see results of runs, never a library."""
