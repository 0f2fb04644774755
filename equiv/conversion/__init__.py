"""Convert checkpoints from one library's form to another's, leaf by leaf, through the layer table of a case."""
