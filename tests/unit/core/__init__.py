"""Unit tests of `controller/core`."""
