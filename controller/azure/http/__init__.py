"""What every Azure client shares: sessions, calls, errors, long-running operations."""
