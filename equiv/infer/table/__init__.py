"""Turn pairs of leaves into rows of a layer table, and write the case file that holds it."""
