"""A candidate against the reference: proofs, numbers for the rest, checks, sensitivity, self-check."""
