"""One module per checkpoint format, each through the format's own library, which is imported on first use."""
