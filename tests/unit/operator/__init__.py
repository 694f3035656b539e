"""Unit tests of `controller/operator`."""
