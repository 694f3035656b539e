"""Unit tests of `controller/core/planning`."""
