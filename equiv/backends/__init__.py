"""The backends: one folder per library. What equiv knows of a library is there, and nowhere else."""
