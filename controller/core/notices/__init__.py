"""Notices: what people are notified of, derived from the state of the set and of one agent."""
