"""The HTML report: views (the data of the templates), plots, and the templates."""
