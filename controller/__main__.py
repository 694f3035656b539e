"""Run the command as `python -m controller`."""

from controller.cli.main import main

main()
