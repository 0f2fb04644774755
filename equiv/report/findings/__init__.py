"""What the findings of a case mean: likely causes, and the source lines that they point at."""
