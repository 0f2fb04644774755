"""One file per check. Checks read outputs of runs and import no library."""
