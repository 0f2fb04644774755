"""For every leaf of the new checkpoint: from which leaf of the old one it comes, or why it has no source."""
