"""The figures that `docs/figures.md` quotes."""
