"""Unit tests of `controller/setup`."""
