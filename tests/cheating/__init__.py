"""Ports that cheat, or are wrong in a place that is easily missed."""
