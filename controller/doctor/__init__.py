"""The doctor: checks everything that the agent needs here, before the first maintenance.

`collect` reads, `checks` decide, and `remedies` has the commands that fix a problem. Nothing here
changes anything.
"""
