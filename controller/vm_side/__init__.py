"""The VM's own side of a drain: its agent closes it, reports, and opens it again."""
