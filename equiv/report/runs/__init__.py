"""Several runs: merged into one report, or compared with each other."""
