"""The background tasks of a running gateway."""
