"""Whether probes and proofs would show a fault."""
