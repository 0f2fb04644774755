"""What the findings of a case mean: where and why they differ, and the source lines that they point at."""
