"""One file a format, each through the library that keeps it; a library is imported when its format is asked for."""
