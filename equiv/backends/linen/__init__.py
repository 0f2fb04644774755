"""The backend of Flax Linen."""
