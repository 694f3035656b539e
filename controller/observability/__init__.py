"""Logs, metrics, traces, and systemd."""
