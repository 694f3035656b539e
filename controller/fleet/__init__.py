"""The availability sets of one or several containers, for those who operate many."""
