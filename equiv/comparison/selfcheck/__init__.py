"""Faults planted in candidates, and whether a run detects them."""
