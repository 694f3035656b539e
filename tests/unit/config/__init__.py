"""Unit tests of `controller/config`."""
