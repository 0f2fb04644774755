"""Plain data that every other package uses: cases, leaves, layouts, results, verdicts. Nothing here imports JAX."""
