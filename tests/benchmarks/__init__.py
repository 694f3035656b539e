"""The figures that README quotes."""
