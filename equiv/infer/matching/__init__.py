"""Pair the leaves of two use graphs: by position, gradient, shape and name, and say which element is which."""
