"""One port's program as a graph of the uses of its leaves, with the order in which each use reads the elements."""
