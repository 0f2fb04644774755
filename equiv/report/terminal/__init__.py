"""Results in the terminal: runs, initial values, self-checks and timings."""
