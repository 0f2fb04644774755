"""Prover."""
