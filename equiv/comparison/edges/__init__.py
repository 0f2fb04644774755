"""Probes where models differ that agree on ordinary values: beyond thresholds, at zeros and ties, late in training."""
