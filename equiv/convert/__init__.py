"""Checkpoints from one library's form to another's, leaf by leaf, through the mapping of a case."""
