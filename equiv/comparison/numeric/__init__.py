"""Running ports on probes, rounding budgets, and the difference of two arrays."""
