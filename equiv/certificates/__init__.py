"""Certificates: proofs as files, written from what the prover found, and checked by a second program."""
