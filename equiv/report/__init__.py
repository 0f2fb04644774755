"""Results to terminal, Markdown, JUnit and HTML. Reads results only; imports neither jax nor a model library."""
