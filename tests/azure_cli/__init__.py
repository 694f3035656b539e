"""The real Azure CLI against the simulator: `python -m tests.azure_cli`."""
