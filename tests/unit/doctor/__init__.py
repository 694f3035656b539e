"""Unit tests of `controller/doctor`."""
