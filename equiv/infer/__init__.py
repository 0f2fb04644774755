"""Infer a layer table from two programs: which leaf of one port is which leaf of the other, and in which layout."""
