"""The status page, its API, and what `status` and `plan` show."""
