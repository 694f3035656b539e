"""Unit tests of `controller/core/notices`."""
