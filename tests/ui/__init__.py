"""The status page in a browser."""
