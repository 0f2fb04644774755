"""`python -m equiv`."""

from equiv.frontends.cli.main import main

main(prog_name="equiv")
