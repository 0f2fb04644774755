"""Prove outputs of two programs equal for every input, by value numbering of their jaxprs."""
