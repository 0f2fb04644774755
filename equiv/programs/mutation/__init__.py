"""Faults as edits of programs: where they fit, and what each does."""
