"""Adapters to Azure: the only place that knows URLs, api-versions, SDK types and JSON fields."""
