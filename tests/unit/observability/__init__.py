"""Unit tests of `controller/observability`."""
