"""The `lb-drain` command: parsers, output, exit codes."""
