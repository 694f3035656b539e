"""The checks of `lb-drain doctor`, one module per area."""
