"""The old checkpoint: its expected leaves, found and checked."""
