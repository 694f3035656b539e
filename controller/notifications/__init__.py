"""Notifications: webhook, Slack, Teams and mail."""
