"""The command line and the pytest plugin: arguments in, results and exit codes out."""
