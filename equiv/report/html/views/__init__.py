"""The data that the templates show, computed from the results."""
