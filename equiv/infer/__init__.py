"""A layer table from two programs alone: which leaf of one port is which leaf of the other, and how it lies there."""
