"""State that agents share through Blob Storage."""
