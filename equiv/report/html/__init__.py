"""The HTML report: views (nouns for the templates), plots, and the templates themselves."""
