"""The smallest reproduction of a difference: the operations of both sides as code that needs jax and numpy alone."""
