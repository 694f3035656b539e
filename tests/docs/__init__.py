"""The documentation: pages that are generated, and output that is shown."""
