"""Ports as jaxprs: trace them, make random draws inputs, convert to float64, compile and run."""
