"""Failures and rate limits on demand."""
