"""Programs that maintain the source."""
