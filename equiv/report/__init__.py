"""Views of a run: terminal and markdown. They read results only; neither jax nor a framework is imported."""
