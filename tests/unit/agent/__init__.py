"""Unit tests of `controller/agent`."""
