"""Measure what each port costs to trace, compile and run, and compare the compiled programs."""
