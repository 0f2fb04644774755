"""The second checker of proofs: the standard library and numpy, and nothing of the prover."""
