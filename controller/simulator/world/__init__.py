"""The state of the simulated Azure."""
