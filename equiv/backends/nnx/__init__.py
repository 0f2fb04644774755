"""The backend of Flax NNX."""
