"""The shipped alert rules and dashboard, compared with the metrics that an agent exposes."""
