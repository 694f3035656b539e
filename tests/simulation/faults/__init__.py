"""Faults that were found by hand, each as the shortest history that shows it."""
