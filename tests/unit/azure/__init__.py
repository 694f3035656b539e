"""Unit tests of `controller/azure`."""
