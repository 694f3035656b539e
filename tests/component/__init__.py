"""Whole components and agents in one process, against the simulator."""
