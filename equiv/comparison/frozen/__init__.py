"""A reference saved as a bundle, and the comparison with it."""
