"""Laws as properties."""
